"""The suite on one labelled volume, through the same `Segmenter` that the robot uses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from threedme_ros.anatomy import Anatomy
from threedme_ros.inference.segmenter import Segmentation
from threedme_ros.training.calibration_error import body_voxels, calibration_score
from threedme_ros.training.metrics import dice_scores
from threedme_ros.volume import Volume

from .labelled import Labelled
from .suite import CORRUPTIONS, Corruption, Strength

SEED = 20261125


class Segments(Protocol):
    """A `Segmenter`, or any network with its way from a volume to labels and confidence on the volume's grid."""

    def segment(self, volume: Volume) -> Segmentation: ...


@dataclass(frozen=True)
class RobustnessScore:
    """One corruption at one strength.

    mean_dice: over the structures that the corrupted truth still shows, a missed one counting 0; NaN if it shows none.
    ece, ece_foreground: see `CalibrationScore`. dice: of each of those structures, by name.
    """

    corruption: str
    strength: Strength
    spoken: str
    mean_dice: float
    ece: float
    ece_foreground: float
    dice: dict[str, float]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class RobustnessReport:
    """clean: the volume as it is. rows: each corruption at each strength."""

    clean: RobustnessScore
    rows: tuple[RobustnessScore, ...]

    @property
    def mean_dice(self) -> float:
        """Over all corruptions and strengths, each row counting the same; rows without a structure are left out."""
        return float(np.nanmean([row.mean_dice for row in self.rows]))

    @property
    def mean_ece(self) -> float:
        return float(np.nanmean([row.ece for row in self.rows]))


def robustness(
    segmenter: Segments,
    volume: Volume,
    labels: Volume,
    names: Sequence[str],
    *,
    anatomy: Anatomy | None = None,
    corruptions: Sequence[Corruption] = CORRUPTIONS,
    seed: int = SEED,
    watch: Callable[[RobustnessScore, Labelled, Segmentation], None] = lambda score, case, found: None,
) -> RobustnessReport:
    """Segment ``volume`` clean and under every corruption, and score each against the truth that moved with it.

    labels: uint8 ids of ``anatomy`` (default: the segmenter's checkpoint's) on the volume's grid. names: the structures
    that they can show; others are unknown to them, and voxels predicted as such are not counted as wrong. watch: gets
    each score with its volume and result, as they come. The same ``seed`` gives the same volumes.
    """
    anatomy = anatomy or segmenter.checkpoint.anatomy
    ids = {name: anatomy[name].id for name in names if name in anatomy}
    if not ids:
        raise ValueError(f"structures {list(names)}: expected some of {[s.name for s in anatomy]}")
    clean = Labelled(volume, labels, volume.with_voxels(body_voxels(volume)))

    def score(name: str, strength: Strength, spoken: str, case: Labelled) -> RobustnessScore:
        found = segmenter.segment(case.image)
        row = _score(name, strength, spoken, case, found, ids)
        watch(row, case, found)
        return row

    first = score("clean", "", "", clean)
    rows = [
        score(c.name, strength, c.spoken(strength), c.apply(clean, strength, seed))
        for c in corruptions
        for strength in c.strengths
    ]
    return RobustnessReport(first, tuple(rows))


def _score(
    name: str, strength: Strength, spoken: str, case: Labelled, found: Segmentation, ids: dict[str, int]
) -> RobustnessScore:
    truth, predicted = case.truth.voxels, found.labels.voxels
    every = dice_scores(predicted, truth, 1 + max(int(predicted.max()), int(truth.max()), *ids.values()))
    sizes = np.bincount(truth.ravel(order="K"), minlength=256)
    dice = {structure: float(every[label]) for structure, label in ids.items() if sizes[label]}
    calibration = calibration_score(predicted, found.confidence.voxels, truth, case.body.voxels, ids.values())
    return RobustnessScore(
        name,
        strength,
        spoken,
        float(np.mean(list(dice.values()))) if dice else float("nan"),
        calibration.body.error,
        calibration.foreground.error,
        dice,
        tuple(found.warnings),
    )
