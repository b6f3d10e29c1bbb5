"""Fixtures for the pretraining tests: two tiny scans in different formats, and a network of a few thousand weights."""

from pathlib import Path

import pytest
import yaml

from threedme_ros.phantom import phantom
from threedme_ros.training.pretrain_task import PretrainTask, load_pretrain_task
from threedme_ros.training.volume_cache import find_volumes, prepare_volumes
from threedme_ros.volume_io import write_volume

TINY = {
    "name": "tiny",
    "seed": 3,
    "steps": 8,
    "model_changes": {
        "channels": [8, 12, 16], "token_size": 8, "vit_dim": 24, "vit_depth": 1, "vit_heads": 2, "plane_heads": 2,
        "plane_points": 2, "knn": 4,
    },
    "preprocessing": {"spacing_mm": [10, 10, 10]},
    "crops": {"shapes": [[32, 32, 32], [16, 32, 48]], "weights": [0.6, 0.4]},
    "learning_rate": 3e-3,
    "ema_decay": 0.9,
    "precision": "fp32",
    "workers": 0,
    "save_every": 3,
}  # fmt: skip


@pytest.fixture(scope="session")
def scans(tmp_path_factory) -> Path:
    """A folder with a NIfTI file and, below it, an NRRD file; and a label map that is no scan."""
    folder = tmp_path_factory.mktemp("scans")
    image, labels = phantom((40, 36, 48), (10, 10, 10), seed=1)
    write_volume(folder / "first.nii.gz", image)
    (folder / "labelsTr").mkdir()
    write_volume(folder / "labelsTr" / "first.nii.gz", labels)
    (folder / "more").mkdir()
    write_volume(folder / "more" / "second.nrrd", phantom((36, 40, 20), (9, 8, 10), seed=2)[0])
    return folder


@pytest.fixture(scope="session")
def tiny_yaml(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("task") / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


@pytest.fixture(scope="session")
def tiny(tiny_yaml) -> PretrainTask:
    return load_pretrain_task(tiny_yaml)


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def volumes(scans, cache, tiny):
    """The prepared scans."""
    return prepare_volumes(find_volumes(scans), cache, tiny.preprocessing)[0]
