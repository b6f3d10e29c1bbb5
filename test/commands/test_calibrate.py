"""`threedme calibrate`: writes the file anew, says what it found, and never takes an evaluation patient."""

import pytest
import torch

from threedme_ros.cli import main
from threedme_ros.model.checkpoint import load_checkpoint, save_checkpoint
from threedme_ros.model.config import ModelConfig, Preprocessing
from threedme_ros.model.threedme import ThreeDME


@pytest.fixture
def path(tmp_path, anatomy):
    torch.manual_seed(0)
    config = ModelConfig(
        "small", anatomy.num_classes, channels=(8, 8, 16), vit_dim=24, vit_depth=1, vit_heads=2, plane_heads=2
    )
    path = tmp_path / "net.safetensors"
    save_checkpoint(path, ThreeDME(config), anatomy, Preprocessing(), {"data": ["A", "phantom 7"]})
    return path


def test_the_training_patients_come_from_the_file_and_the_result_goes_into_it(path, samples, capsys):
    before = load_checkpoint(path).hash
    assert main(["calibrate", str(path), "--only", "temperature", "--windows", "2", "--trunks", "0"]) == 0
    printed = capsys.readouterr().out
    checkpoint = load_checkpoint(path)
    assert checkpoint.calibration["fitted_on"]["patients"] == ["A"] and checkpoint.scope is None
    assert f"cases A; checkpoint {before}" in printed and f"checkpoint {checkpoint.hash}" in printed
    assert f"temperature {checkpoint.calibration['temperature']:.3f}" in printed
    for modality, (as_trained, *_) in checkpoint.calibration["ece"].items():
        assert f"{modality:6} {as_trained:.3f} (" in printed


def test_an_evaluation_patient_is_refused_and_the_file_stays(path, samples, capsys):
    before = path.read_bytes()
    assert main(["calibrate", str(path), "--cases", "C"]) == 2
    assert "evaluation only" in capsys.readouterr().err and path.read_bytes() == before


def test_without_known_patients_they_must_be_named(path, anatomy, capsys):
    save_checkpoint(path, load_checkpoint(path).build(), anatomy, Preprocessing(), {})
    assert main(["calibrate", str(path)]) == 2
    assert "expected --cases" in capsys.readouterr().err
