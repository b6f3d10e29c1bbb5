"""Our path, stage by stage: bytes of a volume in, labels, surfaces and bytes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from threedme_ros.benchmark.timing import Timing
from threedme_ros.geometry.anatomy_geometry import anatomy_geometry
from threedme_ros.inference.incremental import IncrementalSegmenter
from threedme_ros.inference.segmenter import Segmentation, Segmenter
from threedme_ros.pictures.overlay import overlay_rgb
from threedme_ros.volume import Volume
from threedme_ros.volume_io import volume_from_bytes, volume_to_bytes

STAGES = ("decode", "preprocess", "network", "restore", "surface", "encode", "total")
"""Stitching windows is part of the network's time where there is more than one."""

POINT_SPACING_M = 0.002


@dataclass(frozen=True)
class PathTimes:
    """``stages``: by name, as in `STAGES`. ``labels_s``: from Volume to label Volume."""

    stages: dict[str, Timing]
    labels_s: Timing

    @property
    def overhead_share(self) -> float:
        """What is not the network, between Volume and label Volume."""
        return 1 - self.stages["network"].median_s / self.labels_s.median_s

    @property
    def message_overhead_share(self) -> float:
        """What is not the network, between the bytes that come in and those that go out."""
        return 1 - self.stages["network"].median_s / self.stages["total"].median_s


def time_path(
    segmenter: Segmenter | IncrementalSegmenter,
    volumes: list[Volume],
    *,
    before: Callable[[], object] = lambda: None,
    after: Callable[[Volume, Segmentation], object] = lambda volume, result: None,
) -> PathTimes:
    """One run for each of ``volumes``. ``before()`` and ``after(volume, result)`` are not timed.

    Each result is then let go, as a node does with what it has published: the next one finds its memory.
    """
    runs = []
    for volume in volumes:
        before()
        data = np.frombuffer(volume_to_bytes(volume), np.uint8)
        times, result = one_run(segmenter, data, volume.frame_id)
        runs.append(times)
        after(volume, result)
    stages = {name: Timing.of(run[name] for run in runs) for name in STAGES}
    return PathTimes(stages, Timing.of(run["labels"] for run in runs))


def one_run(segmenter, data: np.ndarray, frame_id: str) -> tuple[dict[str, float], Segmentation]:
    """Seconds by stage, and "labels": what the three stages of the segmenter take together."""
    anatomy = segmenter.checkpoint.anatomy
    marks = [perf_counter()]
    volume = volume_from_bytes(data, "nifti", frame_id=frame_id)
    marks.append(perf_counter())
    result = segmenter.segment(volume)
    marks.append(perf_counter())
    anatomy_geometry(result.labels, result.confidence, anatomy, voxel_size_m=POINT_SPACING_M)
    marks.append(perf_counter())
    volume_to_bytes(result.labels)
    volume_to_bytes(result.confidence)
    overlay_rgb(volume, result.labels, anatomy)
    marks.append(perf_counter())
    spans = dict(zip(("decode", "labels", "surface", "encode"), np.diff(marks).tolist(), strict=True))
    inner = {name: result.timings_s[name] for name in ("preprocess", "network", "restore")}
    return {**spans, **inner, "total": marks[-1] - marks[0]}, result


@dataclass(frozen=True)
class Agreement:
    """Of an update with a full pass of the same volume: over ``all`` voxels, and over those in ``changed`` tissue."""

    all: float
    changed: float


def agreement(update: Segmentation, full: Segmentation, before: Volume, after: Volume) -> Agreement:
    same = update.labels.voxels == full.labels.voxels
    different = before.voxels != after.voxels
    return Agreement(float(same.mean()), float(same[different].mean()) if different.any() else 1.0)
