"""Tiny data sets in the exact layout that their authors publish, and a foundation of a few thousand weights."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from threedme_ros.model.config import ModelConfig, Preprocessing
from threedme_ros.model.encoder import Encoder
from threedme_ros.model.foundation import save_foundation
from threedme_ros.volume import Volume
from threedme_ros.volume_io import write_volume

SHAPE = (32, 34, 30)
CASES = 3
MEDMNIST = {"organ": 11, "nodule": 2, "adrenal": 2, "fracture": 3, "vessel": 2, "synapse": 2}
CONFIG = ModelConfig.of_size(
    "small", 2, channels=(8, 8, 16), token_size=8, vit_dim=24, vit_depth=1, vit_heads=2, plane_heads=2, plane_points=2,
    knn=4,
)  # fmt: skip


def labels_of(values: list[int], seed: int, shape=SHAPE) -> np.ndarray:
    """(I, J, K) uint8: a box for each value, in a row along i and k, a little elsewhere in each case."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint8)
    columns = -(-len(values) // 4)
    for number, value in enumerate(values):
        i, k = divmod(number, columns)
        a, c = 2 + 7 * i, 2 + (shape[2] // columns) * k
        b = 6 + int(rng.integers(0, 5))
        labels[a : a + 6, b : b + 14, c : c + max(4, shape[2] // columns - 3)] = value
    return labels


def image_of(labels: np.ndarray, seed: int, ct: bool, flavour: int = 0) -> np.ndarray:
    """int16: an intensity of its own for each label, noise, and for CT a rim of air."""
    levels = np.arange(256) * (37 + 11 * flavour) % 160
    image = levels[labels] + 60 + np.random.default_rng(seed).normal(0, 4, labels.shape)
    image[labels == 0] -= 150 if ct else 40
    if ct:
        image[:, :2] = -1000
    return image.astype(np.int16)


def write_pair(image: Path, labels: Path, values: list[int], seed: int, spacing, ct: bool = True, flip: bool = False):
    affine = np.diag([*spacing, 1.0])
    if flip:  # LPS on disk
        affine[:2] *= -1
    marked = labels_of(values, seed)
    for path in (image, labels):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(image, Volume(image_of(marked, seed, ct), affine))
    write_volume(labels, Volume(marked, affine))


def btcv(root: Path, folders=("RawData/Training/img", "RawData/Training/label")) -> Path:
    for case in range(1, CASES + 1):
        image, labels = (root / f / f"{p}{case:04d}.nii.gz" for f, p in zip(folders, ("img", "label"), strict=True))
        write_pair(image, labels, list(range(1, 14)), case, (1.5, 1.5, 2.0), flip=True)
    return root


def brats(root: Path) -> Path:
    for case in range(CASES):
        name = f"BraTS2021_{case:05d}"
        folder = root / name
        folder.mkdir(parents=True)
        labels = np.zeros(SHAPE, np.uint8)
        for value, margin in ((2, 5), (1, 9), (4, 12)):  # edema round the core round what enhances
            labels[margin + case : 32 - margin, margin : 34 - margin, margin : 30 - margin] = value
        affine = np.diag([-1.0, -1.0, 1.0, 1.0])
        for flavour, modality in enumerate(("flair", "t1", "t1ce", "t2")):
            voxels = image_of(labels, case, ct=False, flavour=flavour)
            write_volume(folder / f"{name}_{modality}.nii.gz", Volume(voxels, affine))
        write_volume(folder / f"{name}_seg.nii.gz", Volume(labels, affine))
    return root


def msd(name: str, names: list[str], spacing, ct: bool = True) -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        rows = []
        for case in range(CASES):
            files = [f"imagesTr/{name}_{case:03d}.nii.gz", f"labelsTr/{name}_{case:03d}.nii.gz"]
            write_pair(root / files[0], root / files[1], list(range(1, len(names) + 1)), case, spacing, ct)
            rows.append({"image": f"./{files[0]}", "label": f"./{files[1]}"})
        document = {
            "name": name,
            "modality": {"0": "CT" if ct else "MRI"},
            "labels": {"0": "background"} | {str(i): n for i, n in enumerate(names, start=1)},
            "numTraining": CASES,
            "numTest": 0,
            "training": rows,
            "test": [],
        }
        (root / "dataset.json").write_text(json.dumps(document))
        return root

    return write


def medmnist(flag: str, classes: int, size: int = 28) -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        root.mkdir(parents=True, exist_ok=True)
        rng, arrays = np.random.default_rng(classes), {}
        for split, count in (("train", 2 * classes), ("val", 2 * classes), ("test", 2 * classes)):
            labels = np.arange(count) % classes
            images = rng.integers(0, 60, (count, size, size, size))
            images += (labels * (190 // classes))[:, None, None, None]
            arrays[f"{split}_images"] = images.astype(np.uint8)
            arrays[f"{split}_labels"] = labels[:, None].astype(np.uint8)
        np.savez_compressed(root / (f"{flag}.npz" if size == 28 else f"{flag}_64.npz"), **arrays)
        return root

    return write


def nnunet(root: Path, ending: str = ".nrrd") -> Path:
    for case in range(CASES):
        image, labels = root / f"imagesTr/p{case}_0000{ending}", root / f"labelsTr/p{case}{ending}"
        write_pair(image, labels, [1, 2], case, (2.0, 2.0, 2.5))
        affine = np.diag([2.0, 2.0, 2.5, 1.0])
        second = image_of(labels_of([1, 2], case), case, ct=False, flavour=1)
        write_volume(root / f"imagesTr/p{case}_0001{ending}", Volume(second, affine))
    document = {
        "channel_names": {"0": "CT", "1": "PET"},
        "labels": {"background": 0, "liver": 1, "lesion": 2},
        "numTraining": CASES,
        "file_ending": ending,
    }
    (root / "dataset.json").write_text(json.dumps(document))
    return root


WRITERS = {
    "btcv": btcv,
    "brats2021": brats,
    "msd_liver": msd("liver", ["liver", "cancer"], (1.5, 1.5, 1.5)),
    "msd_pancreas": msd("pancreas", ["pancreas", "cancer"], (1.0, 1.0, 2.0)),
    "msd_spleen": msd("spleen", ["spleen"], (1.5, 1.5, 2.0)),
    "msd_hippocampus": msd("hippocampus", ["Anterior", "Posterior"], (1.0, 1.0, 1.0), ct=False),
    **{f"medmnist_{n}": medmnist(f"{n}mnist3d", k, 64 if n == "vessel" else 28) for n, k in MEDMNIST.items()},
    "nnunet": nnunet,
}


@pytest.fixture
def dataset(tmp_path) -> Callable[..., Path]:
    """Write the data set of a task below tmp_path/data and return its folder."""
    return lambda name, **options: WRITERS[name](tmp_path / "data" / name, **options)


@pytest.fixture(scope="session")
def tiny_foundation(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("foundation") / "foundation.safetensors"
    encoder = Encoder(CONFIG)
    for _ in range(60):  # statistics of something
        encoder(torch.rand(1, 1, 32, 32, 32) * 2 - 1)
    save_foundation(path, encoder, Preprocessing(), {})
    return path
