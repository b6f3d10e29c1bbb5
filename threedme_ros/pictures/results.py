"""What a demo run collected, and the figures that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from threedme_ros.anatomy import Anatomy
from threedme_ros.geometry.surface import Mesh, PointCloud
from threedme_ros.volume import Volume, VolumeError


@dataclass(frozen=True)
class Evaluation:
    """Mean Dice of the same checkpoint on another case; None: nothing there could be compared."""

    name: str
    note: str
    mean_dice: float | None
    structures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class DemoResults:
    """Everything `write_report` shows.

    image: as published; labels, confidence: uint8 as received, on its grid. truth: ids of ``anatomy`` on that grid, or
    None. cloud, meshes: as received, metres, RAS+; obstacles (N, 3) m, or None. stamp_to_publish_ms: one a volume.
    notes: sentences for the page, e.g. where the ground truth comes from. evaluations: other cases' figures.
    """

    source: str
    checkpoint: str
    engine: str
    anatomy: Anatomy
    image: Volume
    labels: Volume
    confidence: Volume
    cloud: PointCloud
    meshes: Mapping[str, Mesh]
    truth: Volume | None = None
    obstacles: np.ndarray | None = None
    volumes_published: int = 0
    volumes_segmented: int = 0
    volumes_refused: int = 0
    stamp_to_publish_ms: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()

    def __post_init__(self) -> None:
        for name in ("labels", "confidence", "truth"):
            volume = getattr(self, name)
            if volume is not None and not volume.grid.matches(self.image.grid):
                raise VolumeError(f"{name} of shape {volume.shape}: expected the image's grid, {self.image.shape}")


def summary(results: DemoResults) -> dict:
    """The content of summary.json: plain numbers and None, never NaN."""
    structures = structure_rows(results)
    scores = [row["dice"] for row in structures if row["dice"] is not None]
    times = [t for t in results.stamp_to_publish_ms if np.isfinite(t)]
    p50, p95 = (round(float(v), 1) for v in np.percentile(times, (50, 95))) if times else (None, None)
    return {
        "source": results.source,
        "checkpoint": results.checkpoint,
        "engine": results.engine,
        "volumes_published": results.volumes_published,
        "volumes_segmented": results.volumes_segmented,
        "volumes_refused": results.volumes_refused,
        "stamp_to_publish_ms": {"p50": p50, "p95": p95},
        "mean_dice": round(float(np.mean(scores)), 4) if scores else None,
        "structures": structures,
        "evaluations": [
            {"name": e.name, "note": e.note, "mean_dice": _rounded(e.mean_dice),
             "structures": {name: _rounded(dice) for name, dice in e.structures.items()}}
            for e in results.evaluations
        ],
    }  # fmt: skip


def structure_rows(results: DemoResults) -> list[dict]:
    """{name, volume_ml, points, dice} of each structure that was found or is in the ground truth, in table order."""
    found = _counts(results.labels.voxels)
    points = np.bincount(results.cloud.labels, minlength=256)
    truth, both = np.zeros(256, np.int64), np.zeros(256, np.int64)
    if results.truth is not None:
        truth = _counts(results.truth.voxels)
        both = _counts(np.where(results.labels.voxels == results.truth.voxels, results.truth.voxels, 0))
    ml = results.image.grid.voxel_volume_ml
    return [
        {
            "name": s.name,
            "volume_ml": round(float(found[s.id] * ml), 2),
            "points": int(points[s.id]),
            "dice": round(float(2 * both[s.id] / (found[s.id] + truth[s.id])), 4) if truth[s.id] else None,
        }
        for s in results.anatomy
        if found[s.id] or truth[s.id]
    ]


def _counts(labels: np.ndarray) -> np.ndarray:
    return np.bincount(labels.ravel(order="K").astype(np.uint8, copy=False), minlength=256)


def _rounded(value: float | None) -> float | None:
    return round(float(value), 4) if value is not None and np.isfinite(value) else None
