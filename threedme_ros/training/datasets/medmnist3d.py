"""MedMNIST3D: one npz a task, with the official training, validation and test split in it."""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from threedme_ros.training.datasets.cases import DatasetError

SPLITS = ("train", "val", "test")
SIZES = (64, 28)
MAX_BYTES = 1 << 31
"""The largest of the six, Organ at 64^3, has some 460 MB."""
PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Those of numpy, which unpack no more than is asked for; bzip2 and lzma unpack all that a piece holds."""
_STEP = 1 << 20


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
    """All three splits, checked. DatasetError names the file, the key and what was expected.

    Each array's header is read before its voxels, so nothing is unpickled and no memory is taken for more than
    `MAX_BYTES` in all.
    """
    result, left = {}, MAX_BYTES
    try:
        with zipfile.ZipFile(path) as archive:
            held = sorted(name.removesuffix(".npy") for name in archive.namelist())
            for split in SPLITS:
                arrays = []
                for key in (f"{split}_images", f"{split}_labels"):
                    if key not in held:
                        raise DatasetError(f"{path}: no {key} in it; it holds {', '.join(held)}")
                    arrays.append(_read_array(archive, key, left))
                    left -= arrays[-1].nbytes
                result[split] = _checked(f"{path}: {split}", *arrays, num_classes)
    except DatasetError:
        raise
    except Exception as error:  # a damaged zip, deflate stream or header can be any exception
        raise DatasetError(f"{path}: not a readable npz ({error})") from error
    return result


def _read_array(archive: zipfile.ZipFile, key: str, most_bytes: int) -> np.ndarray:
    entry = archive.getinfo(f"{key}.npy")
    if entry.compress_type not in PACKINGS:
        raise DatasetError(f"{key} packed by method {entry.compress_type}: expected one of {PACKINGS}, as numpy packs")
    with archive.open(entry) as file:
        major, _ = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read_header(file)
        if dtype.kind not in "iu" or dtype.itemsize > 8:
            raise DatasetError(f"{key} of {dtype}: expected integers")
        count = math.prod(shape)
        size = count * dtype.itemsize
        if min(shape, default=0) < 1 or size > most_bytes:
            raise DatasetError(f"{key} of shape {shape} {dtype}: expected 1 to {most_bytes} bytes")
        data = bytearray()
        while len(data) < size and (piece := file.read(min(size - len(data), _STEP))):
            data += piece
        if len(data) != size or file.read(1):
            raise DatasetError(f"{key} of {len(data)} bytes or more: its header claims {size}")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def _checked(where: str, images: np.ndarray, labels: np.ndarray, num_classes: int) -> LabelledImages:
    if images.ndim != 4 or images.dtype != np.uint8 or not len(images):
        raise DatasetError(f"{where}_images {images.shape} {images.dtype}: expected (N, D, H, W) uint8")
    if labels.shape not in ((len(images), 1), (len(images),)) or labels.dtype.kind not in "iu":
        raise DatasetError(f"{where}_labels {labels.shape} {labels.dtype}: expected ({len(images)}, 1) integers")
    labels = labels.reshape(-1).astype(np.int64)
    if labels.min() < 0 or labels.max() >= num_classes:
        raise DatasetError(f"{where}_labels from {labels.min()} to {labels.max()}: expected 0 to {num_classes - 1}")
    return LabelledImages(images, labels)
