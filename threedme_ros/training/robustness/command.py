"""`threedme evaluate robustness`: the suite on a sample patient or on a pair of files, as a table and pictures."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from threedme_ros.anatomy import Anatomy
from threedme_ros.inference.segmenter import Segmenter
from threedme_ros.model.checkpoint import load_checkpoint
from threedme_ros.samples import SampleError, sample_case
from threedme_ros.share import DEMO_CHECKPOINT, share_path
from threedme_ros.training.experiments.table import insert, markdown
from threedme_ros.volume_io import read_volume

from .pictures import Gallery
from .run import RobustnessReport, RobustnessScore, robustness
from .suite import chosen

DEFAULT_CASES = ("A",)
DEFAULT_OUTPUT = Path("runs/robustness")


def main(arguments: argparse.Namespace) -> int:
    """Print a table a case and write its pictures; ValueError or OSError for what cannot be evaluated."""
    if (arguments.volume is None) != (arguments.labels is None):
        raise ValueError("expected --volume and --labels together, or neither")
    corruptions = chosen(arguments.corruptions)
    checkpoint = load_checkpoint(arguments.checkpoint or share_path(DEMO_CHECKPOINT))
    # each corruption may have a shape of its own, and the other engines build for each
    segmenter = Segmenter(checkpoint, engine="torch" if arguments.engine == "auto" else arguments.engine)
    output = arguments.output or DEFAULT_OUTPUT
    reports = {}
    try:
        for key, source, volume, labels, names in _cases(arguments, checkpoint.anatomy):
            print(f"case {key}: {source}", flush=True)
            gallery = Gallery(checkpoint.anatomy)
            reports[key] = robustness(segmenter, volume, labels, names, corruptions=corruptions, watch=gallery.add)
            print(table(reports[key]))
            pictures = gallery.save(output / key)
            print(f"{len(pictures)} pictures: {output / key}", flush=True)
    except SampleError as error:
        raise ValueError(str(error)) from error
    finally:
        segmenter.close()
    if arguments.document:
        tables = (f"Case {key}, checkpoint {checkpoint.hash}:\n\n{document(report)}" for key, report in reports.items())
        insert(arguments.document, "robustness", "\n".join(tables))
    if arguments.json:
        found = {
            key: {"mean_dice": report.mean_dice, "mean_ece": report.mean_ece} | asdict(report)
            for key, report in reports.items()
        }
        arguments.json.write_text(json.dumps({"checkpoint": checkpoint.hash, "cases": found}, indent=1))
    return 0


def _cases(arguments: argparse.Namespace, anatomy: Anatomy):
    """(key, source, image, truth, names of what the truth can show) of each case asked for.

    The labels of a file can show what they show.
    """
    if arguments.volume is not None:
        volume, labels = read_volume(arguments.volume), read_volume(arguments.labels)
        shown = set(np.unique(labels.voxels).tolist()) - {0}
        unknown = shown - {s.id for s in anatomy}
        if unknown or not shown:
            raise ValueError(
                f"{arguments.labels}: labels {sorted(shown)}: expected ids of the checkpoint's label table"
            )
        labels = labels.with_voxels(labels.voxels.astype(np.uint8))
        names = [s.name for s in anatomy if s.id in shown]
        yield arguments.volume.name.split(".")[0], f"{arguments.volume}, {arguments.labels}", volume, labels, names
        return
    for key in arguments.cases or DEFAULT_CASES:
        case = sample_case(key)
        yield key, f"{case.role}; {case.source}", case.image(), case.labels(anatomy), case.structures


def document(report: RobustnessReport) -> str:
    """The scores as Markdown, a row a corruption: mean Dice and calibration error at each strength, in order."""
    named: dict[str, list[RobustnessScore]] = {}
    for row in report.rows:
        named.setdefault(row.corruption, []).append(row)
    rows = [
        (
            name,
            ", ".join(row.spoken.removesuffix(f" {unit}") for row in found) + f" {unit}",
            ", ".join(f"{row.mean_dice:.3f}" for row in found),
            ", ".join(f"{row.ece:.3f}" for row in found),
        )
        for name, found in named.items()
        for unit in (found[0].spoken.partition(" ")[2],)
    ]
    clean = ("none", "", f"{report.clean.mean_dice:.3f}", f"{report.clean.ece:.3f}")
    mean = ("mean of all", "", f"{report.mean_dice:.3f}", f"{report.mean_ece:.3f}")
    return markdown(("corruption", "strengths", "mean Dice", "ECE"), [clean, *rows, mean])


def table(report: RobustnessReport) -> str:
    """The scores as plain text: mean Dice, what it lost, and the calibration error over the body and its structures."""
    lines = [f"  {'corruption':16} {'strength':>17} {'Dice':>6} {'loss':>7} {'ECE':>6} {'structures only':>16}"]
    for row in (report.clean, *report.rows):
        loss = report.clean.mean_dice - row.mean_dice
        lines.append(
            f"  {row.corruption:16} {row.spoken:>17} {row.mean_dice:6.3f} {loss:7.3f} {row.ece:6.3f}"
            f" {row.ece_foreground:16.3f}"
        )
    lines.append(f"  {'mean of all':34} {report.mean_dice:6.3f} {'':7} {report.mean_ece:6.3f}")
    return "\n".join(lines)
