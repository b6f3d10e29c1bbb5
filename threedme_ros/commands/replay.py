"""`threedme replay`: a recording of the perception node made again, labels compared bit for bit."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="what the parameter `record` named: a folder of bags, or one bag")
    parser.add_argument("--max-voxels", type=int, help="as the node's parameter max_voxels (default: as the node's)")
    parser.add_argument("--checkpoint", help="the file that was recorded with (default: the shipped one)")


def run(arguments: argparse.Namespace) -> int:
    """0 if every recorded result was made again, bit for bit; 1 if not; 2 if there is nothing that could be."""
    from threedme_ros.model.checkpoint import load_checkpoint
    from threedme_ros.nodes.replay import DIFFERENT, IDENTICAL, UNCHECKED, Skipped, recorded_volumes, replay
    from threedme_ros.share import DEMO_CHECKPOINT, share_path
    from threedme_ros.volume_io import DEFAULT_MAX_VOXELS

    checkpoint = load_checkpoint(arguments.checkpoint or share_path(DEMO_CHECKPOINT))
    counts, notes = Counter(), []
    print(f"{'stamp':>21}  {'volume':>13}  {'made by':<22}  {'pass':<11}  {'s':>6}  labels and confidence")
    for row in replay(arguments.folder, checkpoint, arguments.max_voxels or DEFAULT_MAX_VOXELS):
        if isinstance(row, Skipped):
            notes.append(f"skipped: {row.why}")
            continue
        counts[row.verdict] += 1
        shape = "x".join(str(n) for n in row.shape) or "-"
        made_by = f"{row.made_by.engine} {row.made_by.precision}"
        verdict = f"{row.verdict}: {row.why}" if row.why else row.verdict
        print(f"{row.stamp:>21}  {shape:>13}  {made_by:<22}  {row.made_by.update:<11}  {row.seconds:6.2f}  {verdict}")
    total = sum(counts.values())
    print(
        f"checkpoint {checkpoint.hash}: {recorded_volumes(arguments.folder)} volumes recorded, {total} with a result: "
        + ", ".join(f"{counts[verdict]} {verdict}" for verdict in (IDENTICAL, DIFFERENT, UNCHECKED))
    )
    if not total:
        notes.append("nothing was compared")
    print(*notes, sep="\n", end="\n" if notes else "")
    return 0 if total and counts[IDENTICAL] == total and not notes else 1
