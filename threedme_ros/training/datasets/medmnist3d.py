"""MedMNIST3D: one npz a task, with the official training, validation and test split in it."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from threedme_ros.training.datasets.cases import DatasetError

SPLITS = ("train", "val", "test")
SIZES = (64, 28)


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """images (N, D, H, W) uint8, in the file's own axis order; labels (N,) int64."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


def find_file(root: str | Path, flag: str, size: int | None = None) -> Path:
    """``flag``.npz (28^3) or ``flag``_64.npz in ``root``, or ``root`` itself; of both the 64^3 one. DatasetError."""
    root = Path(root)
    if root.is_file():
        return root
    names = {28: f"{flag}.npz", 64: f"{flag}_64.npz"}
    if size is not None and size not in names:
        raise DatasetError(f"image size {size}: expected one of {sorted(names)}")
    for option in SIZES if size is None else (size,):
        if (root / names[option]).is_file():
            return root / names[option]
    wanted = names.values() if size is None else [names[size]]
    there = sorted(p.name for p in root.iterdir())[:8] if root.is_dir() else []
    raise DatasetError(f"{root}: no {' or '.join(wanted)} in it; it holds {', '.join(there) or 'nothing'}")


def read_splits(path: Path, num_classes: int) -> dict[str, LabelledImages]:
    """All three splits, checked. DatasetError names the file, the key and what was expected."""
    result = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            for split in SPLITS:
                missing = [k for k in (f"{split}_images", f"{split}_labels") if k not in file.files]
                if missing:
                    raise DatasetError(f"{path}: no {missing[0]} in it; it holds {', '.join(sorted(file.files))}")
                images, labels = file[f"{split}_images"], file[f"{split}_labels"]
                result[split] = _checked(f"{path}: {split}", images, labels, num_classes)
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{path}: not a readable npz ({error})") from error
    return result


def _checked(where: str, images: np.ndarray, labels: np.ndarray, num_classes: int) -> LabelledImages:
    if images.ndim != 4 or images.dtype != np.uint8 or not len(images):
        raise DatasetError(f"{where}_images {images.shape} {images.dtype}: expected (N, D, H, W) uint8")
    if labels.shape not in ((len(images), 1), (len(images),)) or labels.dtype.kind not in "iu":
        raise DatasetError(f"{where}_labels {labels.shape} {labels.dtype}: expected ({len(images)}, 1) integers")
    labels = labels.reshape(-1).astype(np.int64)
    if labels.min() < 0 or labels.max() >= num_classes:
        raise DatasetError(f"{where}_labels from {labels.min()} to {labels.max()}: expected 0 to {num_classes - 1}")
    return LabelledImages(images, labels)
