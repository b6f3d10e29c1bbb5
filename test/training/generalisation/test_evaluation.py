"""What `evaluate` reports of an untrained network, on the real sample volumes."""

import json
from types import SimpleNamespace

import pytest
import torch

from threedme_ros.model.checkpoint import load_checkpoint, save_checkpoint
from threedme_ros.model.config import ModelConfig, Preprocessing
from threedme_ros.model.threedme import ThreeDME
from threedme_ros.samples import sample_case
from threedme_ros.training.generalisation.evaluation import evaluate
from threedme_ros.training.metrics import present
from threedme_ros.training.robustness import run as suite


@pytest.fixture
def report(samples, anatomy, tmp_path, monkeypatch):
    def robustness(segmenter, volume, labels, names):
        assert volume.grid.matches(labels.grid) and "liver" in names
        return SimpleNamespace(mean_dice=0.125)

    monkeypatch.setattr(suite, "robustness", robustness)  # it has tests of its own
    torch.manual_seed(0)
    tiny = ModelConfig("small", 17, channels=(8, 8, 16), vit_dim=24, vit_depth=1, vit_heads=2, plane_heads=2)
    save_checkpoint(tmp_path / "t.safetensors", ThreeDME(tiny), anatomy, Preprocessing(spacing_mm=(9.0, 9.0, 9.0)), {})
    return evaluate(load_checkpoint(tmp_path / "t.safetensors"), ("B",), samples, say=lambda text: None)


def test_every_structure_of_every_truth_is_there_found_or_not(report, samples, anatomy):
    assert list(report["dice"]) == ["A", "B", "C", "D"]
    for key, found in report["dice"].items():
        truth = sample_case(key, samples).labels(anatomy)
        shown = {s.name for s in anatomy if s.id in present(truth.voxels, anatomy.num_classes)}
        assert found.keys() == shown
    assert any(dice == 0 for found in report["dice"].values() for dice in found.values())  # untrained: most are missed
    assert report["robustness"] == {"B": 0.125} and report["seconds"] > 0
    json.dumps(report, allow_nan=False)
