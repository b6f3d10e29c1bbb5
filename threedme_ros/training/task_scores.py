"""Scores of a task on held-out cases, and what is said of many of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .metrics import hausdorff95_mm, normalised_surface_dice

FIGURES = ("dice", "nsd", "hd95_mm")


@dataclass(frozen=True)
class TargetScore:
    """One target in one case. NaN where a figure does not exist: in truth and prediction both absent, or, for HD95,
    one of them."""

    dice: float
    nsd: float
    hd95_mm: float
    truth_ml: float
    predicted_ml: float


def score_targets(
    predicted: np.ndarray,
    truth: np.ndarray,
    targets: Mapping[str, Sequence[int]],
    spacing_mm: tuple[float, float, float],
    tolerance_mm: float,
) -> dict[str, TargetScore]:
    """Labels (I, J, K) uint8 of one grid, spacing in their axis order. A target is a union of label values."""
    voxel_ml = math.prod(spacing_mm) / 1000
    scores = {}
    for name, ids in targets.items():
        p, t = np.isin(predicted, list(ids)), np.isin(truth, list(ids))
        total = int(p.sum()) + int(t.sum())
        scores[name] = TargetScore(
            dice=2 * int((p & t).sum()) / total if total else math.nan,
            nsd=normalised_surface_dice(p, t, spacing_mm, tolerance_mm),
            hd95_mm=hausdorff95_mm(p, t, spacing_mm),
            truth_ml=int(t.sum()) * voxel_ml,
            predicted_ml=int(p.sum()) * voxel_ml,
        )
    return scores


def shown_mean(scores: Mapping[str, TargetScore], figure: str = "dice") -> float:
    """Mean of a figure over the targets that the truth shows; NaN if it shows none."""
    values = [getattr(s, figure) for s in scores.values() if s.truth_ml > 0]
    values = [v for v in values if not math.isnan(v)]
    return float(np.mean(values)) if values else math.nan


def summarise(cases: Mapping[str, Mapping[str, TargetScore]]) -> dict[str, dict]:
    """Per target: mean and standard deviation of each figure over the cases whose truth shows it.

    A missed target counts with Dice and NSD 0, and has no HD95: "missed" counts these; "false_alarms" counts the cases
    where it is predicted and not there, which no mean includes.
    """
    result: dict[str, dict] = {}
    for name in next(iter(cases.values())):
        rows = [scores[name] for scores in cases.values()]
        shown = [s for s in rows if s.truth_ml > 0]
        summary: dict = {"cases": len(shown)}
        for figure in FIGURES:
            values = [v for v in (getattr(s, figure) for s in shown) if not math.isnan(v)]
            summary[figure] = float(np.mean(values)) if values else None
            summary[f"{figure}_sd"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
        summary["missed"] = sum(s.predicted_ml == 0 for s in shown)
        summary["false_alarms"] = sum(s.truth_ml == 0 and s.predicted_ml > 0 for s in rows)
        result[name] = summary
    return result
