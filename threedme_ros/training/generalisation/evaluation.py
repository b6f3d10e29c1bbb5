"""What a finished network does on every sample volume, whole, through the `Segmenter` that the robot uses."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from threedme_ros.inference.engines.torch_engine import TorchEngine
from threedme_ros.inference.segmenter import Segmenter
from threedme_ros.model.checkpoint import Checkpoint
from threedme_ros.samples import sample_case
from threedme_ros.training.evaluate import evaluate_samples
from threedme_ros.training.peer_checkpoint import PeerCheckpoint

CASES = ("A", "B", "C", "D")
TIMED_CASE, TIMED_RUNS = "A", 3
PRECISION = "bf16"


def evaluate(
    checkpoint: Checkpoint | PeerCheckpoint,
    robustness_on: Sequence[str],
    samples: Path | None = None,
    say: Callable[[str], None] = print,
) -> dict:
    """Dice by sample case and structure, robustness mean, and seconds a volume; all in JSON's types.

    "dice": case -> structure -> Dice, of every structure the case's truth shows, a missed one 0. "robustness": case ->
    mean Dice of the suite, for ``robustness_on``. "seconds": CPU seconds of `TIMED_CASE` from volume to labels, the
    fastest of `TIMED_RUNS`. Every network runs in torch, in bf16, on whole volumes, on the threads torch has. Nothing
    that is found here goes back into any training.
    """
    from threedme_ros.training.robustness.run import robustness

    torch.set_flush_denormal(True)
    segmenter = Segmenter(checkpoint, engine=TorchEngine(checkpoint.build(), precision=PRECISION))
    try:
        scores = evaluate_samples(segmenter, CASES, samples, surfaces=False)
        report: dict = {
            "dice": {case.key: {s.name: s.dice for s in case.structures if s.truth_ml > 0} for case in scores},
            "robustness": {},
            "seconds": _seconds(segmenter, samples),
        }
        for key in robustness_on:
            case = sample_case(key, samples)
            names = case.structures
            found = robustness(segmenter, case.image(), case.labels(checkpoint.anatomy), names)
            report["robustness"][key] = found.mean_dice
            say(f"{key}: robustness mean Dice {found.mean_dice:.3f}")
    finally:
        segmenter.close()
    return report


def _seconds(segmenter: Segmenter, samples: Path | None) -> float:
    volume = sample_case(TIMED_CASE, samples).image()
    taken = []
    for _ in range(TIMED_RUNS):
        began = time.process_time()
        segmenter.segment(volume)
        taken.append(time.process_time() - began)
    return min(taken)
