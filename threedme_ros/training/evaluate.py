"""How well a checkpoint segments the sample patients, through the same `Segmenter` that the robot uses."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from threedme_ros.anatomy import Anatomy
from threedme_ros.inference.segmenter import Segmenter
from threedme_ros.model.checkpoint import load_checkpoint
from threedme_ros.samples import SampleError, sample_case
from threedme_ros.share import DEMO_CHECKPOINT, share_path
from threedme_ros.volume import Volume

from .calibration_error import body_voxels, calibration_score
from .metrics import dice_scores, hausdorff95_mm, normalised_surface_dice

SURFACE_TOLERANCE_MM = 3.0
"""One voxel of the model's grid."""

CASES = ("A", "B", "C", "D")


@dataclass(frozen=True)
class StructureScore:
    """One structure of one case. ``surface_dice`` at `SURFACE_TOLERANCE_MM`; NaN where a figure does not exist."""

    name: str
    truth_ml: float
    predicted_ml: float
    dice: float
    surface_dice: float
    hd95_mm: float


@dataclass(frozen=True)
class CaseScore:
    """One case. ``mean_dice``: over every structure that the ground truth shows, a missed one counting 0.

    ece: expected calibration error over the body; ece_structures: where truth or prediction is a structure (see
    `calibration_score`). scope, scope_threshold: see `threedme_ros.inference.scope.Scope`; None without a verdict.
    """

    key: str
    role: str
    source: str
    mean_dice: float
    seconds: float
    structures: tuple[StructureScore, ...]
    warnings: tuple[str, ...] = ()
    ece: float = float("nan")
    ece_structures: float = float("nan")
    scope: float | None = None
    scope_threshold: float | None = None


def score_labels(
    predicted: Volume, truth: Volume, anatomy: Anatomy, names: Sequence[str], surfaces: bool = True
) -> tuple[StructureScore, ...]:
    """Scores of the structures ``names`` that either volume shows; both volumes on one grid.

    Other structures are unknown to this ground truth and are not scored. surfaces: also the two surface figures.
    Raises ValueError for different grids.
    """
    if not predicted.grid.matches(truth.grid):
        raise ValueError(f"prediction {predicted.grid.shape} and truth {truth.grid.shape}: expected one grid")
    dice = dice_scores(predicted.voxels, truth.voxels, anatomy.num_classes)
    voxel_ml = truth.grid.voxel_volume_ml
    scores = []
    for name in names:
        label = anatomy[name].id
        p, t = predicted.voxels == label, truth.voxels == label
        if not p.any() and not t.any():
            continue
        surface, hd95 = float("nan"), float("nan")
        if surfaces:
            surface = normalised_surface_dice(p, t, truth.spacing_mm, SURFACE_TOLERANCE_MM)
            hd95 = hausdorff95_mm(p, t, truth.spacing_mm)
        volumes = (float(t.sum() * voxel_ml), float(p.sum() * voxel_ml))
        scores.append(StructureScore(name, *volumes, float(dice[label]), surface, hd95))
    return tuple(scores)


def mean_over_truth(scores: Sequence[StructureScore]) -> float:
    """Mean Dice over the structures that the ground truth shows; NaN if it shows none."""
    shown = [s.dice for s in scores if s.truth_ml > 0]
    return float(np.mean(shown)) if shown else float("nan")


def evaluate_samples(
    segmenter: Segmenter,
    keys: Sequence[str] = CASES,
    folder: Path | None = None,
    surfaces: bool = True,
    progress: Callable[[str], None] = lambda text: None,
) -> list[CaseScore]:
    """Segment each sample case whole and score it. ``folder``: where the samples lie (None fetches them)."""
    anatomy, results = segmenter.checkpoint.anatomy, []
    for key in keys:
        case = sample_case(key, folder)
        progress(f"case {key}: {case.source}")
        image, truth = case.image(), case.labels(anatomy)
        found = segmenter.segment(image)
        names = [s.name for s in anatomy if s.name in case.structures]
        scores = score_labels(found.labels, truth, anatomy, names, surfaces)
        ids = [anatomy[name].id for name in names]
        voxels = (found.labels.voxels, found.confidence.voxels, truth.voxels)
        calibration = calibration_score(*voxels, body_voxels(image), ids)
        results.append(
            CaseScore(
                key,
                case.role,
                case.source,
                mean_over_truth(scores),
                found.timings_s["total"],
                scores,
                tuple(found.warnings),
                calibration.body.error,
                calibration.foreground.error,
                found.scope and found.scope.score,
                found.scope and found.scope.threshold,
            )
        )
    return results


def table(results: Sequence[CaseScore]) -> str:
    """The scores as plain text. A structure the truth does not show is marked, and is outside the mean."""
    lines = []
    for case in results:
        lines.append(f"{case.key} ({case.role}; {case.source}): mean Dice {case.mean_dice:.3f}, {case.seconds:.1f} s")
        verdict = (
            "no scope score" if case.scope is None else f"scope {case.scope:.1f} (from {case.scope_threshold:.1f})"
        )
        lines.append(f"  calibration error {case.ece:.3f}, of structures {case.ece_structures:.3f}; {verdict}")
        lines.append(f"  {'structure':20} {'Dice':>6} {'NSD 3 mm':>9} {'HD95 mm':>8} {'truth ml':>9} {'found ml':>9}")
        for s in case.structures:
            note = "" if s.truth_ml > 0 else "  not in the truth"
            lines.append(
                f"  {s.name:20} {s.dice:6.3f} {s.surface_dice:9.3f} {s.hd95_mm:8.1f} {s.truth_ml:9.1f}"
                f" {s.predicted_ml:9.1f}{note}"
            )
        lines += [f"  warning: {text}" for text in case.warnings]
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", type=Path, default=None, help="default: the one that ships")
    parser.add_argument("--cases", nargs="+", metavar="CASE", help="default: A B C D; A for robustness")
    parser.add_argument("--engine", default="auto", help="default: auto")
    parser.add_argument("--fast", action="store_true", help="Dice only, no surface figures")
    parser.add_argument("--json", type=Path, default=None, help="also write the scores to this file")


def main(arguments: argparse.Namespace) -> int:
    """Print the table; ValueError or OSError for what cannot be evaluated."""
    segmenter = Segmenter(load_checkpoint(arguments.checkpoint or share_path(DEMO_CHECKPOINT)), engine=arguments.engine)
    try:
        results = evaluate_samples(segmenter, arguments.cases or CASES, surfaces=not arguments.fast, progress=print)
    except SampleError as error:
        raise ValueError(str(error)) from error
    finally:
        segmenter.close()
    print(table(results))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(case) for case in results], indent=1))
    return 0
