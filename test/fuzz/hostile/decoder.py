"""What a decoder is to a campaign, and how one that reads files is given bytes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from threedme_ros.volume import Volume

from .mutation import Mutator

MAX_VOXELS = 1 << 16


@dataclass(frozen=True)
class Decoder:
    """``prepare``: bytes -> what ``decode`` takes, outside the guard; ``allowed``: the paths it may open.

    ``refusals``: its own error classes. ``check``: AssertionError unless a result keeps its promises.
    """

    name: str
    decode: Callable
    refusals: tuple[type[Exception], ...]
    check: Callable[[object], None]
    mutate: Mutator
    seeds: Callable[[], list[bytes]]
    prepare: Callable[[bytes], object] = bytes
    allowed: frozenset[str] = frozenset()


@cache
def scratch() -> Path:
    """A folder of this process in memory, for decoders that take a path."""
    shared = Path("/dev/shm")
    folder = tempfile.TemporaryDirectory(prefix=f"hostile-{os.getpid()}-", dir=shared if shared.is_dir() else None)
    _folders.append(folder)
    return Path(folder.name)


_folders: list[tempfile.TemporaryDirectory] = []


def remove_scratch() -> None:
    """For a process that ends without Python's own tidying up."""
    for folder in _folders:
        folder.cleanup()


def from_file(
    name: str, suffix: str, decode: Callable[[Path], object], also: str = "", called: str = "", **options
) -> Decoder:
    """A decoder of a file: the bytes are written to the scratch folder, the one path it may open.

    also: a file of our own that it reads, too. called: the path below the scratch folder, where its reader asks for it.
    """
    path = scratch() / (called or f"{name}{suffix}")
    path.parent.mkdir(exist_ok=True)

    def prepare(data: bytes) -> Path:
        path.write_bytes(data)
        return path

    return Decoder(name, decode, prepare=prepare, allowed=frozenset({str(path), also} - {""}), **options)


def check_volume(volume: Volume) -> None:
    assert np.isfinite(volume.affine).all() and volume.affine.shape == (4, 4)
    assert abs(np.linalg.det(volume.affine[:3, :3] / np.linalg.norm(volume.affine[:3, :3], axis=0))) >= 1e-4
    assert volume.voxels.ndim == 3 and min(volume.shape) >= 1 and volume.voxels.size <= MAX_VOXELS
    assert volume.voxels.dtype.kind in "iuf" and volume.voxels.dtype.isnative and volume.voxels.flags.aligned
    volume.voxels.max()  # every voxel lies in memory that is there
