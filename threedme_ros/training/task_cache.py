"""The cases of a segmentation task, each read and checked once, and kept prepared on disk.

A case is one safetensors file: image (C, D, H, W) float16 in [-1, 1] and labels (D, H, W) uint8 on the model's grid, as
`threedme_ros.inference.preprocess.prepare` makes it, and places (N, 4) int16: class and voxel of some of each class's
voxels. Its name is a hash of the files and of what was done to them, so nothing stale is ever read; windows are read
out of it without reading the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from threedme_ros.inference.channels import GRID_TOLERANCE_MM, prepare_channels
from threedme_ros.private_files import PRIVATE_FOLDER, replacing
from threedme_ros.volume import Volume, VolumeError, resample
from threedme_ros.volume_io import read_volume

from .case import class_locations
from .datasets.cases import DatasetError, SegmentationCase
from .task_table import SegmentationTask
from .volume_cache import BadCase, cache_key, map_cases

VERSION = "task-case-1"


@dataclass(frozen=True, eq=False)
class PreparedCase:
    """A checked case; ``shape`` (D, H, W) on the model's grid. places: class -> (N, 3) voxels."""

    name: str
    path: Path
    shape: tuple[int, int, int]
    places: dict[int, Tensor]

    def window(self, ranges: Sequence[slice]) -> tuple[Tensor, Tensor]:
        """image (C, d, h, w) float32 and labels (d, h, w) uint8 of three ``ranges``; nothing else is read."""
        with safe_open(self.path, framework="pt") as file:
            image = file.get_slice("image")[:, ranges[0], ranges[1], ranges[2]]
            labels = file.get_slice("labels")[ranges[0], ranges[1], ranges[2]]
        return image.float(), labels


def read_case(case: SegmentationCase, task: SegmentationTask) -> tuple[list[Volume], Volume]:
    """The images, one a channel, and the labels as uint8. DatasetError names the file that cannot be used."""

    def read(path: Path) -> Volume:
        try:
            return read_volume(path)
        except VolumeError as error:
            raise DatasetError(f"{path}: {error}") from error

    images = [read(path) for path in case.images]
    return images, checked_labels(case.labels, read(case.labels), images[0], task)


def checked_labels(path: Path, labels: Volume, image: Volume, task: SegmentationTask) -> Volume:
    """``labels`` as uint8; DatasetError unless they lie on the image's grid and hold only values of the task."""
    if not labels.grid.matches(image.grid, GRID_TOLERANCE_MM):
        raise DatasetError(
            f"{path}: shape {labels.shape}, spacing {_mm(labels)}: expected the image's grid, "
            f"shape {image.shape}, spacing {_mm(image)} and the same place"
        )
    known = {0, *(s.id for s in task.anatomy)}
    values = set()
    for slab in np.moveaxis(labels.voxels, int(np.argmin(np.abs(labels.voxels.strides))), -1):
        values.update(np.unique(slab).tolist())
        if not values <= known:
            strange = sorted(values - known)[:4]
            raise DatasetError(f"{path}: label values {strange}: expected only {sorted(known)}")
    return labels.with_voxels(labels.voxels.astype(np.uint8))


def prepare_cases(
    cases: Sequence[SegmentationCase],
    task: SegmentationTask,
    cache: Path,
    *,
    skip_bad_cases: bool = False,
    workers: int = 1,
    start: float = 0.0,
    progress: Callable[[Iterator, int], Iterator] = lambda items, total: items,
) -> tuple[list[PreparedCase], list[BadCase]]:
    """Read, check and prepare every case, from ``cache`` where it is done; and those that cannot be used.

    start: the share of the cases to begin behind; ranks that share a cache begin at different ones and find each
    other's work done. A bad case is a DatasetError that names it and its file, unless ``skip_bad_cases``. OSError if
    the disk is full.
    """
    cache.mkdir(PRIVATE_FOLDER, parents=True, exist_ok=True)
    first = int(start * len(cases))
    turn = [*cases[first:], *cases[:first]]
    done: dict[str, PreparedCase | BadCase] = {}
    for result in progress(map_cases(partial(_prepared, task=task, cache=cache), turn, workers), len(turn)):
        if isinstance(result, BadCase) and not skip_bad_cases:
            raise DatasetError(f"case {result.name}: {result.reason}; --skip-bad-cases goes on without such cases")
        done[result.name] = result
    good = [done[case.name] for case in cases if isinstance(done[case.name], PreparedCase)]
    bad = [done[case.name] for case in cases if isinstance(done[case.name], BadCase)]
    if not good:
        raise DatasetError(f"none of {len(bad)} cases can be used; the first, {bad[0].name}: {bad[0].reason}")
    return good, bad


def _prepared(case: SegmentationCase, task: SegmentationTask, cache: Path) -> PreparedCase | BadCase:
    try:
        path = cache / f"{_key(case, task)}.safetensors"
        return _opened(case.name, path) or _made(case, task, path)
    except (VolumeError, DatasetError) as error:
        return BadCase(case.name, str(error))


def _key(case: SegmentationCase, task: SegmentationTask) -> str:
    parts = [cache_key(p, task.preprocessing, m) for p, m in zip(case.images, task.modalities, strict=True)]
    parts += [cache_key(case.labels, task.preprocessing, "labels"), VERSION, str([s.id for s in task.anatomy])]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


def _opened(name: str, path: Path) -> PreparedCase | None:
    """A case that was prepared before; None if it is not there, or is damaged and must be made again."""
    try:
        with safe_open(path, framework="pt") as file:
            image, labels = file.get_slice("image"), file.get_slice("labels")
            shape, places = tuple(labels.get_shape()), file.get_tensor("places")
            alike = len(shape) == 3 and tuple(image.get_shape()[1:]) == shape
            if not alike or (image.get_dtype(), labels.get_dtype()) != ("F16", "U8") or not _lie_within(shape, places):
                return None
            return PreparedCase(name, path, shape, _by_class(places))
    except Exception:  # whatever is wrong with it, it is made again
        return None


def _lie_within(shape: tuple[int, int, int], places: Tensor) -> bool:
    """Whether ``places`` are (N, 4) int16, class and voxel, of labels (D, H, W) of ``shape``."""
    if places.dtype != torch.int16 or places.ndim != 2 or places.shape[1] != 4:
        return False
    return bool((places >= 0).all() and (places[:, 1:] < torch.tensor(shape)).all())


def _made(case: SegmentationCase, task: SegmentationTask, path: Path) -> PreparedCase:
    images, labels = read_case(case, task)
    channels = prepare_channels(images, task.preprocessing, task.modalities)
    on_grid = np.ascontiguousarray(resample(labels, channels.first.grid, order=0).voxels.T)  # -> (D, H, W)
    found = {} if not on_grid.any() else class_locations(torch.from_numpy(on_grid))
    rows = [torch.cat([torch.full((len(v), 1), c), v], 1) for c, v in found.items()]
    places = torch.cat(rows).to(torch.int16) if rows else torch.zeros(0, 4, dtype=torch.int16)
    tensors = {"image": torch.from_numpy(channels.x).half(), "labels": torch.from_numpy(on_grid), "places": places}
    try:
        with replacing(path) as temporary:
            save_file(tensors, temporary)
    except (SafetensorError, OSError) as error:
        raise OSError(f"cache {path.parent}: cannot write case {case.name}, is the disk full? ({error})") from error
    return PreparedCase(case.name, path, on_grid.shape, _by_class(places))


def _by_class(places: Tensor) -> dict[int, Tensor]:
    return {int(c): places[places[:, 0] == c, 1:].long() for c in places[:, 0].unique()}


def _mm(volume: Volume) -> str:
    return " x ".join(f"{s:.3g}" for s in volume.spacing_mm) + " mm"
