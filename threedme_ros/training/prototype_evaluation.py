"""`threedme evaluate prototypes`: one patient's labels segment another patient, with no gradient step.

The figures say what the embedding carries, not what a new structure would give: the checkpoint was trained on the
labels of A and B.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from threedme_ros.inference.prototypes import PrototypeSegmenter
from threedme_ros.model.checkpoint import load_checkpoint
from threedme_ros.samples import SampleError, sample_case
from threedme_ros.share import DEMO_CHECKPOINT, share_path

from .evaluate import StructureScore, mean_over_truth, score_labels

PAIRS = (("A", "B"), ("B", "A"), ("A", "D"), ("A", "C"))
"""Example, and the case that is segmented."""


def evaluate_pair(
    segmenter: PrototypeSegmenter, example: str, target: str, folder: Path | None = None
) -> tuple[StructureScore, ...]:
    """Dice of the structures that both show: an example cannot teach what it lacks."""
    anatomy = segmenter.checkpoint.anatomy
    teacher, case = sample_case(example, folder), sample_case(target, folder)
    labels = teacher.labels(anatomy)
    prototypes = segmenter.learn(teacher.image(), labels)
    taught = set(prototypes.labels.tolist())
    found = segmenter.segment(case.image(), prototypes)
    names = [s.name for s in anatomy if s.id in taught and s.name in case.structures]
    return score_labels(found.labels, case.labels(anatomy), anatomy, names, surfaces=False)


def table(example: str, target: str, scores: tuple[StructureScore, ...]) -> str:
    role = sample_case(target).role
    lines = [f"{example} -> {target} ({role}): mean Dice {mean_over_truth(scores):.3f}"]
    for s in scores:
        note = "" if s.truth_ml > 0 else "  not in the truth"
        lines.append(f"  {s.name:20} {s.dice:6.3f} {s.truth_ml:9.1f} ml, found {s.predicted_ml:9.1f} ml{note}")
    return "\n".join(lines)


def main(arguments: argparse.Namespace) -> int:
    """Print a table a pair; ValueError or OSError for what cannot be evaluated."""
    segmenter = PrototypeSegmenter(load_checkpoint(arguments.checkpoint or share_path(DEMO_CHECKPOINT)))
    results = {}
    print("labels are TotalSegmentator's output, not a human's; the checkpoint was trained on A and B")
    try:
        for example, target in PAIRS:
            scores = evaluate_pair(segmenter, example, target)
            results[f"{example}{target}"] = [asdict(s) for s in scores]
            print(table(example, target, scores))
    except SampleError as error:
        raise ValueError(str(error)) from error
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))
    return 0
