import json

import numpy as np
import pytest
import torch

from threedme_ros.anatomy import Anatomy, Structure
from threedme_ros.cli import main
from threedme_ros.model.checkpoint import save_checkpoint
from threedme_ros.model.classifier import Classifier, save_classifier
from threedme_ros.model.config import ModelConfig, Preprocessing
from threedme_ros.model.threedme import ThreeDME
from threedme_ros.volume import Volume
from threedme_ros.volume_io import read_volume, write_volume

CHANNELS = ("flair", "t1")
CONFIG = ModelConfig.of_size("small", 3, in_channels=2, channels=(8, 8, 16), vit_dim=24, vit_depth=1, plane_heads=2)


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    anatomy = Anatomy([Structure(i, n, (i, i, i), 0.0, "context") for i, n in ((1, "a"), (2, "b"))])
    provenance = {"task": {"channels": list(CHANNELS), "modalities": ["other", "other"]}}
    save_checkpoint(tmp_path / "c.safetensors", ThreeDME(CONFIG), anatomy, Preprocessing((2, 2, 2)), provenance)
    return tmp_path / "c.safetensors"


@pytest.fixture
def patients(tmp_path):
    for n in range(3):
        for channel in CHANNELS:
            path = tmp_path / f"scans/p{n}/p{n}_{channel}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            voxels = np.random.default_rng(n).integers(1, 900, (18, 20, 16)).astype(np.int16)
            write_volume(path, Volume(voxels, np.diag([-2.0, -2.0, 2.0, 1.0])))
    return tmp_path / "scans"


def test_two_processes_share_a_cohort_of_two_channels(checkpoint, patients, tmp_path, monkeypatch, capsys):
    output = tmp_path / "out"
    command = ["predict", str(patients), "--output", str(output), "--checkpoint", str(checkpoint), "--engine", "torch"]
    for rank in ("0", "1"):
        monkeypatch.setenv("SLURM_PROCID", rank)
        monkeypatch.setenv("SLURM_NTASKS", "2")
        assert main([*command, "--device", "cpu"]) == 0
    assert "3 of 3 cases done, 0 failed, 0 left (process 1 of 2)" in capsys.readouterr().out
    labels = read_volume(output / "labels/p1/p1.nii.gz")
    assert labels.grid.matches(read_volume(patients / "p1/p1_flair.nii.gz").grid)
    assert json.loads((output / "predict.json").read_text())["done"] == 3


def test_a_missing_modality_is_named(checkpoint, patients, tmp_path, capsys):
    (patients / "p1/p1_t1.nii.gz").unlink()
    command = ["predict", str(patients), "--output", str(tmp_path / "out"), "--checkpoint", str(checkpoint)]
    assert main(command) == 2
    assert "case p1/p1.nii.gz: no t1 file" in capsys.readouterr().err


def test_a_classifier_segments_nothing(patients, tmp_path, capsys):
    path = tmp_path / "k.safetensors"
    save_classifier(path, Classifier(CONFIG), ["a", "b", "c"], (32, 32, 32), {})
    assert main(["predict", str(patients), "--output", str(tmp_path / "out"), "--checkpoint", str(path)]) == 2
    assert "a classifier; expected a segmentation checkpoint" in capsys.readouterr().err
