"""From a task and a folder to cases or images: the reader of its layout, its split, and the plan of an nnU-Net set."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from threedme_ros.model.config import Preprocessing
from threedme_ros.volume import VolumeError
from threedme_ros.volume_io import read_volume

from .datasets import brats, btcv, msd, nnunet
from .datasets.cases import DatasetError, SegmentationCase, Split, existing_folder, split_cases
from .task_table import SegmentationTask, Task, find_task, structures

NNUNET = "nnunet"
PLANNED_CASES = 40
"""At most so many cases, evenly spread, are read to plan an nnU-Net data set."""
FOREGROUND_PERCENTILES = (0.5, 99.5)
LARGEST_WINDOW = 96


def open_task(name: str, data: Path) -> Task:
    """A shipped task or a YAML file by ``name``; "nnunet" is made from ``data``/dataset.json, not yet planned."""
    if name != NNUNET:
        return find_task(name)
    description = nnunet.read_description(data)
    return SegmentationTask(
        name=data.resolve().name,
        title=f"nnU-Net data set {data.resolve().name}",
        data="the given folder",
        reference="",
        layout="nnunet",
        channels=dict(zip(description.channels, description.modalities, strict=True)),
        anatomy=structures(description.structures),
        regions=description.regions,
    )


def find_split(task: SegmentationTask, data: Path, fold: int) -> Split:
    """The cases of ``data``, read by the task's layout, split into training and held-out ones. DatasetError."""
    existing_folder(data)
    channels = tuple(task.channels)
    if task.layout == "msd":
        msd.check_labels(data, {s.id: s.name for s in task.anatomy})
    readers = {"btcv": btcv.find_cases, "brats": brats.find_cases, "msd": msd.find_cases}
    if task.layout == "nnunet":
        readers["nnunet"] = partial(nnunet.find_cases, ending=nnunet.read_description(data).ending)
    if task.layout not in readers:
        raise DatasetError(f"layout {task.layout!r} holds no scans: expected one of {sorted(readers)}")
    return split_cases(data, readers[task.layout](data, channels), fold)


def planned(task: SegmentationTask, cases: tuple[SegmentationCase, ...]) -> SegmentationTask:
    """Preprocessing and window from the training ``cases``: the median spacing; for CT, the window of 99% of the
    foreground's HU (nnU-Net's rules, Isensee et al. 2021); a window no larger than the median scan. DatasetError."""
    step = -(-len(cases) // PLANNED_CASES)
    spacings, shapes, values = [], [], []
    for case in cases[::step]:
        try:
            image, labels = read_volume(case.images[0]), read_volume(case.labels)
        except VolumeError as error:
            raise DatasetError(f"case {case.name}: {error}") from error
        canonical = image.reoriented("RAS")[0]
        spacings.append(canonical.spacing_mm)
        shapes.append(canonical.shape)
        if image.shape == labels.shape:
            foreground = image.voxels[labels.voxels > 0]
            values.append(foreground[:: 1 + len(foreground) // 10_000])
    spacing = np.median(spacings, axis=0)
    size = np.median(np.array(shapes) * np.array(spacings) / spacing, axis=0)[::-1]  # (R, A, S) -> (D, H, W)
    window = tuple(int(min(LARGEST_WINDOW, max(32, 16 * np.ceil(n / 16)))) for n in size)
    preprocessing = Preprocessing(spacing_mm=tuple(float(s) for s in spacing))
    pooled = np.concatenate(values) if values else np.zeros(0)
    if task.modalities[0] == "ct" and len(pooled):
        low, high = np.percentile(pooled, FOREGROUND_PERCENTILES)
        if low < high:
            preprocessing = replace(preprocessing, ct_window_hu=(float(low), float(high)))
    return replace(task, preprocessing=preprocessing, window=window)
