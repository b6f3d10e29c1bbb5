"""Two kinds of image, one threshold apart: their neighbours tell them apart without training."""

import numpy as np
import pytest
import torch

from threedme_ros import cli
from threedme_ros.model.config import ModelConfig, Preprocessing
from threedme_ros.model.encoder import Encoder
from threedme_ros.model.foundation import save_foundation

CONFIG = ModelConfig("small", 2, channels=(8, 16, 24), vit_dim=24, vit_depth=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """adrenalmnist3d.npz in MedMNIST3D's layout, and a random foundation beside it."""
    root = tmp_path_factory.mktemp("medmnist")
    random, arrays = np.random.default_rng(0), {}
    for split, count in (("train", 12), ("val", 6), ("test", 8)):
        labels = np.arange(count) % 2
        images = random.integers(0, 60, (count, 28, 28, 28), np.uint8)
        images[labels == 1, 8:20, 8:20, 8:20] = 220
        arrays |= {f"{split}_images": images, f"{split}_labels": labels[:, None].astype(np.uint8)}
    np.savez(root / "adrenalmnist3d.npz", **arrays)
    torch.manual_seed(0)
    save_foundation(root / "foundation.safetensors", Encoder(CONFIG), Preprocessing(), {})
    return root


def test_the_command_prints_auc_and_acc_of_both_splits(folder, capsys):
    arguments = ["--data", str(folder), "--foundation", str(folder / "foundation.safetensors")]
    assert cli.main(["evaluate", "medmnist_adrenal", *arguments, "--neighbours", "3"]) == 0
    printed = capsys.readouterr().out
    assert "3 nearest neighbours" in printed
    assert "8 images: AUC 1.000, ACC 1.000" in printed


def test_without_a_foundation_or_for_segmentation_it_is_refused(folder, capsys):
    assert cli.main(["evaluate", "medmnist_adrenal", "--data", str(folder), "--neighbours", "3"]) == 2
    assert "expected a classification task, --foundation" in capsys.readouterr().err
