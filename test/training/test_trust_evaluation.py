"""The table of trust: the temperature taken out again, and what is no body."""

import numpy as np
import pytest
import torch

from threedme_ros.model.checkpoint import add_to_checkpoint, load_checkpoint, save_checkpoint
from threedme_ros.model.config import ModelConfig, Preprocessing
from threedme_ros.model.threedme import ThreeDME
from threedme_ros.training.calibration import HEAD
from threedme_ros.training.calibration_error import calibration_score
from threedme_ros.training.trust_evaluation import Verdict, no_bodies, table, untempered


def test_without_its_temperature_the_network_is_as_it_was_trained(tmp_path, anatomy):
    torch.manual_seed(0)
    config = ModelConfig(
        "small", anatomy.num_classes, channels=(8, 8, 16), vit_dim=24, vit_depth=1, vit_heads=2, plane_heads=2
    )
    path = tmp_path / "net.safetensors"
    save_checkpoint(path, ThreeDME(config), anatomy, Preprocessing(), {})
    trained = load_checkpoint(path)
    head = {name: trained.weights[name].float() / 1.7 for name in HEAD}
    add_to_checkpoint(path, {"calibration": {"temperature": 1.7}}, head)
    calibrated = load_checkpoint(path)
    bare = untempered(calibrated)
    assert bare.hash != calibrated.hash and bare.scope is None
    x = torch.randn(1, 1, 16, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(bare.build()(x), trained.build()(x), rtol=1e-5, atol=1e-5)


def test_what_is_no_body_comes_in_hounsfield_units_and_without():
    volumes = dict(no_bodies())
    assert len(volumes) == 5
    assert volumes["white noise, 400 HU"].voxels.std() == pytest.approx(400, rel=0.02)
    assert volumes["white noise, no unit"].voxels.min() == 0
    assert np.ptp(volumes["one value everywhere"].voxels) == 0
    water = volumes["water phantom, 20 cm"].voxels[:, :, 20]
    assert abs((water > -500).sum() * 9 / (np.pi * 99**2) - 1) < 0.03


def test_the_table_says_what_was_measured_and_what_was_not():
    labels, sure = np.ones(10, np.uint8), np.full(10, 255, np.uint8)
    wrong = calibration_score(labels, sure, np.arange(10, dtype=np.uint8) % 2, np.ones(10, bool), [1])
    text = table(
        [
            Verdict("patient X", wrong, wrong, 2.0, -0.3),
            Verdict("head", scope=-2.5, threshold=-0.3),
            Verdict("one value", refused="every voxel is 40"),
            Verdict("old checkpoint"),
        ]
    )
    assert "| patient X | 0.500 | 0.500 | 0.500 | 0.500 | 2.0 | in scope |" in text
    assert "| head |  |  |  |  | -2.5 | flagged |" in text
    assert "refused: every voxel is 40" in text and "no verdict" in text
