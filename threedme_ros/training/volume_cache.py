"""Unlabelled volumes of any format -> prepared arrays on disk, made once and then read by memory map.

An array is (D, H, W) = (S, A, R) float16 in [-1, 1] on the model's grid, as `threedme_ros.inference.preprocess.prepare`
makes it. Its file name is a hash of what it was made from (path, size and time of every file) and how (preprocessing,
modality), so that a changed scan or setting makes a new one and nothing stale is ever read.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from threedme_ros.inference.preprocess import prepare
from threedme_ros.model.config import Preprocessing
from threedme_ros.private_files import PRIVATE_FOLDER, replacing
from threedme_ros.samples import RELEASE, sample_case
from threedme_ros.volume import VolumeError
from threedme_ros.volume_io import read_volume

from .errors import TrainingError

VERSION = "prepared-1"
SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd")
LABEL_FOLDERS = ("labels*", "*_seg.*", "*-seg.*", "*label*.nii*")
"""What a folder of scans may also hold and pretraining must not take for one."""
DICOM_MAGIC_AT, DICOM_MAGIC = 128, b"DICM"


@dataclass(frozen=True)
class CachedVolume:
    """One prepared scan: ``name`` is its path within the data folder, ``shape`` (D, H, W)."""

    name: str
    path: Path
    shape: tuple[int, int, int]

    def open(self) -> np.ndarray:
        """(D, H, W) float16, memory-mapped: only the windows that are drawn are read."""
        return np.load(self.path, mmap_mode="r", allow_pickle=False)


@dataclass(frozen=True)
class BadCase:
    """A scan that cannot be used, and the reason."""

    name: str
    reason: str


def find_volumes(
    folder: str | Path, exclude: Sequence[str] = LABEL_FOLDERS, *, to_train_on: bool = True
) -> dict[str, Path]:
    """Every scan below ``folder``, sorted: name -> a volume file, or a folder with DICOM slices.

    exclude: patterns; a file or folder whose name matches one is passed over, with all that is in it. TrainingError
    if the folder does not exist, holds no scan, or, ``to_train_on``, the sample patients, of whom two are for
    evaluation only.
    """
    root = Path(folder)
    if not root.is_dir():
        raise TrainingError(f"data folder {folder}: no such folder")
    if to_train_on and (RELEASE in root.resolve().parts or next(root.rglob(RELEASE), None)):
        raise TrainingError(
            f"{folder} holds {RELEASE}, with patients kept for evaluation: use --samples for the others"
        )
    found: dict[str, Path] = {}
    for here, folders, files in os.walk(root):
        if to_train_on and RELEASE in Path(here).resolve().parts:
            raise TrainingError(
                f"{here} holds patients kept for evaluation: give --samples for the others of {RELEASE}"
            )
        keep = [name for name in sorted(folders) if not _matches(name, exclude)]
        folders[:] = keep  # os.walk goes on with these
        others = []
        for name in sorted(files):
            if name.startswith(".") or _matches(name, exclude):
                continue
            path = Path(here, name)
            if name.lower().endswith(SUFFIXES):
                found[path.relative_to(root).as_posix()] = path
            else:
                others.append(path)
        if any(_is_dicom(path) for path in others):
            found[Path(here).relative_to(root).as_posix()] = Path(here)
    if not found:
        raise TrainingError(f"data folder {folder}: no volume in it; expected {', '.join(SUFFIXES)} or DICOM folders")
    return dict(sorted(found.items()))


def sample_volumes(keys: Sequence[str]) -> dict[str, Path]:
    """The images of sample cases ``keys``; TrainingError for one that is kept for evaluation, without opening it."""
    cases = [sample_case(key) for key in keys]
    for case in cases:
        if case.role != "training":
            raise TrainingError(f"case {case.key} ({case.source}) is for evaluation only: expected a training case")
    return {case.key: case.image_path for case in cases}


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatch(name.lower(), pattern) for pattern in patterns)


def _is_dicom(path: Path) -> bool:
    if path.suffix.lower() == ".dcm":
        return True
    with path.open("rb") as file:
        return file.read(DICOM_MAGIC_AT + len(DICOM_MAGIC))[DICOM_MAGIC_AT:] == DICOM_MAGIC


def cache_key(path: Path, preprocessing: Preprocessing, modality: str) -> str:
    """20 hex digits of the identity of a file, or of every file in a DICOM folder, and of what is done to it."""
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    digest = hashlib.sha256(f"{VERSION}\0{preprocessing}\0{modality}".encode())
    for file in files:
        stat = file.stat()
        digest.update(f"\0{file.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}".encode())
    return digest.hexdigest()[:20]


def prepare_volumes(
    volumes: dict[str, Path],
    cache: str | Path,
    preprocessing: Preprocessing,
    *,
    modality: str = "auto",
    skip_bad_cases: bool = False,
    workers: int = 1,
    start: int = 0,
    progress: Callable[[Iterator, int], Iterator] = lambda items, total: items,
) -> tuple[list[CachedVolume], list[BadCase]]:
    """The prepared form of ``volumes`` in their order, from ``cache`` or made now; and those that cannot be used.

    A bad case is a TrainingError that names it, unless ``skip_bad_cases``. workers: threads that prepare. start: the
    case to begin with; ranks that share a cache begin at different ones and find each other's work done. progress:
    wraps the iteration, as tqdm does.
    """
    Path(cache).mkdir(PRIVATE_FOLDER, parents=True, exist_ok=True)
    names = list(volumes)
    turn = names[start % len(names) :] + names[: start % len(names)]
    one = partial(_cached, cache=Path(cache), preprocessing=preprocessing, modality=modality)
    done: dict[str, CachedVolume | BadCase] = {}
    for result in progress(map_cases(one, [(name, volumes[name]) for name in turn], workers), len(turn)):
        if isinstance(result, BadCase) and not skip_bad_cases:
            raise TrainingError(f"{volumes[result.name]}: {result.reason}; --skip-bad-cases goes on without such cases")
        done[result.name] = result
    good = [done[name] for name in names if isinstance(done[name], CachedVolume)]
    bad = [done[name] for name in names if isinstance(done[name], BadCase)]
    if not good:
        raise TrainingError(f"none of {len(bad)} cases can be used; the first, {bad[0].name}: {bad[0].reason}")
    return good, bad


def map_cases(function: Callable, items: list, workers: int) -> Iterator:
    """``function`` of each item, in order; ``workers`` at a time."""
    if workers < 2:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(workers)  # reading, unzipping and rescaling hold no interpreter lock
    try:
        yield from pool.map(function, items)
    finally:
        pool.shutdown(cancel_futures=True)  # a bad case ends the run now, not after the others


def _cached(case: tuple[str, Path], cache: Path, preprocessing: Preprocessing, modality: str) -> CachedVolume | BadCase:
    name, path = case
    try:
        target = cache / f"{cache_key(path, preprocessing, modality)}.npy"
        shape = _shape_of(target)
        if shape is None:
            x = prepare(read_volume(path), preprocessing, modality).x
            shape = x.shape
            _write(target, x.astype(np.float16))
    except VolumeError as error:
        return BadCase(name, str(error))
    return CachedVolume(name, target, shape)


def _shape_of(path: Path) -> tuple[int, int, int] | None:
    """Of a prepared array; None if it is not there, or is damaged and must be made again."""
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except Exception:  # a header is Python's own text: numpy answers an odd one with a SyntaxError, anything
        return None
    return array.shape if array.ndim == 3 and array.size and array.dtype == np.float16 else None


def _write(path: Path, array: np.ndarray) -> None:
    try:
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, array, allow_pickle=False)
    except OSError as error:
        raise OSError(f"cache {path.parent}: cannot write a prepared volume ({error.strerror or error})") from error
