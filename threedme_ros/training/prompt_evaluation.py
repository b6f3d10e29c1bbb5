"""What clicks give on the sample patients: `threedme evaluate prompts`, and the time of a second click.

The first click is the structure's deepest voxel (the one farthest from its boundary), each further one the deepest
point of the largest mistake: what a careful user does, and the same at every run. Patients A and B are trained on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from threedme_ros.inference.prompts import PromptSegmenter
from threedme_ros.model.checkpoint import load_checkpoint
from threedme_ros.model.prompt_file import load_prompt_decoder
from threedme_ros.samples import SampleCase, SampleError, sample_case, totalsegmentator_ids
from threedme_ros.share import DEMO_CHECKPOINT, DEMO_PROMPT_DECODER, share_path
from threedme_ros.volume import Volume

from .evaluate import CASES
from .prompt_clicks import correction, deepest

CLICKS = 3
MIN_ML = 1.0


@dataclass(frozen=True)
class PromptScore:
    """One structure of one case: Dice after 1, 2, ... clicks. ``name``: ours where we have one, with the source id."""

    name: str
    truth_ml: float
    dice: tuple[float, ...]


@dataclass(frozen=True)
class PromptCase:
    """``others``: structures of the source segmentation that our label table does not know. ratio: `click_times`."""

    key: str
    role: str
    source: str
    known: tuple[PromptScore, ...]
    others: tuple[PromptScore, ...]
    encode_s: float
    click_s: float


def dice(a: np.ndarray, b: np.ndarray) -> float:
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else float("nan")


def clicked_dice(
    segmenter: PromptSegmenter, truth: np.ndarray, clicks: int = CLICKS
) -> tuple[tuple[float, ...], float]:
    """Dice after each of ``clicks`` on ``truth`` (I, J, K) bool, on the grid of the encoded volume, and the seconds of
    all of them. Shorter if nothing is left to correct."""
    grid = segmenter.volume.grid
    index, foreground = [deepest(truth, grid.spacing_mm)], [True]
    scores, seconds = [], 0.0
    while True:
        found = segmenter.click(grid.to_mm(np.array(index)), np.array(foreground))
        seconds += found.seconds
        mask = found.mask.voxels > 0
        scores.append(dice(mask, truth))
        following = correction(mask, truth, grid.spacing_mm) if len(scores) < clicks else None
        if following is None:
            return tuple(scores), seconds
        index.append(following[0])
        foreground.append(following[1])


def click_times(segmenter: PromptSegmenter, volume: Volume, first_mm: np.ndarray, second_mm: np.ndarray) -> dict:
    """Seconds of a first click on a volume nobody has clicked yet, of a second that refines it, and their ratio.

    first_mm, second_mm: (3,) RAS+ mm, both foreground. The first includes the encoding, once; the second reuses it.
    """
    points = np.array([first_mm, second_mm], np.float64)
    began = perf_counter()
    segmenter.set_volume(volume)
    segmenter.click(points[:1], np.array([True]))
    between = perf_counter()
    segmenter.click(points, np.array([True, True]))
    ended = perf_counter()
    first, second = between - began, ended - between
    return {"first_s": first, "second_s": second, "ratio": second / first}


def evaluate_case(segmenter: PromptSegmenter, case: SampleCase) -> PromptCase:
    volume, source = case.image(), case.source_labels()
    began = perf_counter()
    segmenter.set_volume(volume)
    encode_s = perf_counter() - began
    names = {i: (name, len(ids)) for name, ids in totalsegmentator_ids(case.task).items() for i in ids}
    known, others, seconds, clicks = [], [], 0.0, 0
    for source_id in np.unique(source.voxels[source.voxels > 0]).tolist():
        truth = source.voxels == source_id
        truth_ml = float(truth.sum() * volume.grid.voxel_volume_ml)
        if truth_ml < MIN_ML:
            continue
        scores, spent = clicked_dice(segmenter, truth)
        seconds, clicks = seconds + spent, clicks + len(scores)
        name, parts = names.get(source_id, ("", 0))
        text = name if parts == 1 else f"{name or 'id'} {source_id}"
        (known if name else others).append(PromptScore(text, truth_ml, scores))
    return PromptCase(case.key, case.role, case.source, tuple(known), tuple(others), encode_s, seconds / max(clicks, 1))


def evaluate_prompts(
    segmenter: PromptSegmenter,
    keys: Sequence[str] = CASES,
    folder: Path | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> list[PromptCase]:
    """Every structure of at least `MIN_ML` of every case; ``folder``: where the samples lie (None fetches them)."""
    results = []
    for key in keys:
        case = sample_case(key, folder)
        progress(f"case {key}: {case.source}")
        results.append(evaluate_case(segmenter, case))
    return results


def table(results: Sequence[PromptCase]) -> str:
    """Plain text: Dice after 1, 2, 3 clicks."""
    head = "".join(f"{n + 1:>4} click" for n in range(CLICKS))
    lines = []
    for case in results:
        trained = "trained on" if case.role == "training" else "never trained on"
        lines.append(
            f"{case.key} ({trained}; {case.source}): encoding {case.encode_s:.2f} s, {case.click_s:.2f} s a click"
        )
        lines.append(f"  {'structure':24} {'ml':>8}{head}")
        lines += [f"  {s.name:24} {s.truth_ml:8.1f}" + "".join(f"{d:10.3f}" for d in s.dice) for s in case.known]
        for title, scores in (("mean of these", case.known), ("mean of other structures", case.others)):
            if scores:
                means = np.mean([[s.dice[min(n, len(s.dice) - 1)] for n in range(CLICKS)] for s in scores], 0)
                lines.append(f"  {title:24} {len(scores):6} n" + "".join(f"{m:10.3f}" for m in means))
    return "\n".join(lines)


def times_line(segmenter: PromptSegmenter, folder: Path | None = None, repeats: int = 5) -> str:
    """Medians of `click_times` in the liver of patient A: the deepest point, and one 6 mm above it."""
    case = sample_case("A", folder)
    volume, source = case.image(), case.source_labels()
    liver = source.voxels == totalsegmentator_ids(case.task)["liver"][0]
    first = volume.grid.to_mm(np.array([deepest(liver, volume.spacing_mm)]))[0]
    times = [click_times(segmenter, volume, first, first + np.array([0, 0, 6])) for _ in range(repeats)]
    median = {name: float(np.median([t[name] for t in times])) for name in times[0]}
    return (
        f"first click {median['first_s']:.3f} s with the encoding, second click {median['second_s']:.3f} s: "
        f"ratio {median['ratio']:.3f} (medians of {repeats})"
    )


def open_prompt_segmenter(checkpoint: Path | None = None, decoder: Path | None = None) -> PromptSegmenter:
    """What ships, or other files. CheckpointError, FileNotFoundError."""
    loaded = load_checkpoint(checkpoint or share_path(DEMO_CHECKPOINT))
    return PromptSegmenter(loaded, load_prompt_decoder(decoder or share_path(DEMO_PROMPT_DECODER), loaded))


def main(arguments: argparse.Namespace) -> int:
    """Print the table; ValueError or OSError for what cannot be evaluated."""
    segmenter = open_prompt_segmenter(arguments.checkpoint, arguments.prompt_decoder)
    try:
        results = evaluate_prompts(segmenter, arguments.cases or CASES, progress=print)
        print(table(results))
        print(times_line(segmenter))
    except SampleError as error:
        raise ValueError(str(error)) from error
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(case) for case in results], indent=1))
    return 0
