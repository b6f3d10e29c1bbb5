"""The temperature: found where it is known, folded into the last layer, and the labels are the same."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

from threedme_ros.inference.confidence import ConfidenceMap
from threedme_ros.model.checkpoint import load_checkpoint, save_checkpoint
from threedme_ros.model.config import ModelConfig, Preprocessing
from threedme_ros.model.threedme import ThreeDME
from threedme_ros.phantom import phantom
from threedme_ros.training.calibration import (
    CalibrationConfig,
    calibrate,
    error_of,
    fit_line,
    fit_lines,
    fit_temperature,
)
from threedme_ros.training.case import training_case
from threedme_ros.training.errors import TrainingError
from threedme_ros.training.window_config import WindowConfig

PREPROCESSING = Preprocessing(spacing_mm=(9.0, 9.0, 12.0))
SMALL = WindowConfig(shapes=((32, 32, 32),), weights=(1,))
QUICK = CalibrationConfig(windows=4, voxels=2000, trunks=0, ct=SMALL, other=SMALL)


def drawn(temperature, n=40_000, classes=5, seed=0):
    """Logits that are ``temperature`` times those that the labels were drawn from."""
    generator = torch.Generator().manual_seed(seed)
    true = 2 * torch.randn(n, classes, generator=generator)
    labels = torch.multinomial(true.softmax(1), 1, generator=generator)[:, 0]
    return true * temperature, labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_a_known_temperature_is_found(temperature):
    logits, labels = drawn(temperature)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.03)
    assert error_of(logits / temperature, labels) < 0.01


def test_too_sure_is_a_large_error():
    logits, labels = drawn(2.5)
    assert error_of(logits, labels) > 0.1


def test_a_known_line_is_found():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.3, 0.95, 50_000)
    logit = np.log(confidence / (1 - confidence))
    correct = rng.random(len(logit)) < 1 / (1 + np.exp(-(0.7 * logit - 0.4)))
    assert fit_line(confidence, correct) == pytest.approx([0.7, -0.4], abs=0.05)
    assert fit_line(np.zeros(0), np.zeros(0, bool)) == [1.0, 0.0]


def test_lines_mend_what_no_temperature_can():
    """Class 0 is right more often than it says, the others less often, as after a loss for small structures."""
    logits, labels = drawn(1.0)
    skewed = logits.clone()
    skewed[:, 0] -= 1.5
    temperature = fit_temperature(skewed, labels)
    lines = fit_lines(skewed / temperature, labels)
    with_temperature = error_of(skewed / temperature, labels, structures=True)
    assert error_of(skewed / temperature, labels, lines, structures=True) < 0.5 * with_temperature
    assert error_of(skewed / temperature, labels, lines) < 0.02


@pytest.fixture(scope="module")
def case(anatomy):
    image, labels = phantom(anatomy=anatomy)
    return training_case("phantom", image, labels, labels, PREPROCESSING)


@pytest.fixture
def path(tmp_path, anatomy):
    torch.manual_seed(1)
    tiny = ModelConfig(
        "small", anatomy.num_classes, channels=(8, 8, 16), vit_dim=24, vit_depth=1, vit_heads=2, plane_heads=2
    )
    model = ThreeDME(tiny)
    with torch.no_grad():
        model.decoder.head.bias.mul_(2.5)  # knows that most is background, and is far too sure of it
    path = tmp_path / "net.safetensors"
    save_checkpoint(path, model, anatomy, PREPROCESSING, {"seed": 1})
    return path


def test_labels_stay_and_logits_are_divided(path, case, anatomy):
    before = load_checkpoint(path)
    found = calibrate(path, [case], anatomy, QUICK)
    after = load_checkpoint(path)
    assert after.hash != before.hash and found.temperature > 1.5
    x = torch.randn(1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        old, new = before.build()(x), after.build()(x)
        torch.testing.assert_close(new * found.temperature, old, rtol=1e-4, atol=1e-4)
        assert (before.build().predict(x)[0] == after.build().predict(x)[0]).all()


def test_what_was_done_is_in_the_file(path, case, anatomy):
    found = calibrate(path, [case], anatomy, QUICK)
    checkpoint = load_checkpoint(path)
    assert checkpoint.calibration["temperature"] == found.temperature
    assert checkpoint.calibration["lines"] == found.lines and checkpoint.calibration["ece"] == found.ece
    for modality in ("ct", "other"):
        as_trained, _, calibrated = found.ece[modality]
        assert calibrated < as_trained
    assert checkpoint.calibration["fitted_on"]["patients"] == ["phantom"]
    assert checkpoint.provenance == {"seed": 1} and checkpoint.scope is None
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["calibration"])["fitted_on"]["windows"] == 4
    assert ConfidenceMap(found.lines).apply(*np.full((2, 1), 255, np.uint8), "ct").dtype == np.uint8


def test_calibrating_again_changes_nothing_but_the_last_digits(path, case, anatomy):
    first = calibrate(path, [case], anatomy, QUICK)
    again = calibrate(path, [case], anatomy, QUICK)
    assert again.temperature == pytest.approx(first.temperature, rel=0.01)
    assert again.ece["ct"] == pytest.approx(first.ece["ct"], abs=2e-3)


def test_a_scope_of_the_old_confidence_is_dropped(path, case, anatomy):
    from threedme_ros.model.checkpoint import add_to_checkpoint

    add_to_checkpoint(path, {"scope": {"threshold": 0.0}})
    assert load_checkpoint(path).scope == {"threshold": 0.0}
    calibrate(path, [case], anatomy, QUICK)
    assert load_checkpoint(path).scope is None


def test_too_few_windows_are_refused():
    with pytest.raises(TrainingError, match="expected at least 2 windows"):
        CalibrationConfig(windows=1)
