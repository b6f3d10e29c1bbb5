"""How time and memory grow with the volume: each size in a process of its own, so that its peak is its own.

``python -m threedme_ros.benchmark.growth`` is that process: a request as JSON on stdin, the answer on stdout.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from threedme_ros.benchmark.timing import Timing, peak_mb, repeat

SHAPES = ((64, 64, 64), (128, 128, 128), (256, 256, 128), (256, 256, 256), (512, 512, 300))
"""(R, A, S)."""

POINT_TIMEOUT_S = 300
LIMIT_S = 12.0
RUNS = 5


@dataclass(frozen=True)
class Point:
    """seconds: Volume to label Volume. peak_mb: the most the process ever held; base_mb: before it had an engine.
    windows: how many the network saw it in. build_s: until the engine was ready for this size."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    seconds: Timing
    network: Timing
    peak_mb: float
    base_mb: float
    windows: int
    build_s: float


def growth_point(
    shape: Sequence[int], spacing_mm: Sequence[float], checkpoint: str, engine: str, precision: str, threads: int
) -> Point:
    """Measured in a new process. RuntimeError with its last words if it fails."""
    request = {
        "shape": list(shape), "spacing_mm": list(spacing_mm), "checkpoint": checkpoint, "engine": engine,
        "precision": precision, "threads": threads,
    }  # fmt: skip
    command = [sys.executable, "-m", "threedme_ros.benchmark.growth"]
    try:
        done = subprocess.run(
            command, input=json.dumps(request), capture_output=True, text=True, timeout=POINT_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"volume of {tuple(shape)}: no result in {POINT_TIMEOUT_S} s") from error
    if done.returncode:
        raise RuntimeError(f"volume of {tuple(shape)}: exit status {done.returncode}: {done.stderr.strip()[-500:]}")
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    seconds, network = (Timing(**answer.pop(name)) for name in ("seconds", "network"))
    return Point(tuple(shape), tuple(spacing_mm), seconds, network, **answer)


def _measure(request: dict) -> dict:
    from time import perf_counter

    from threedme_ros.benchmark.subject import subject
    from threedme_ros.inference.segmenter import Segmenter
    from threedme_ros.inference.tiling import plan_windows
    from threedme_ros.model.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(request["checkpoint"])
    volume, _ = subject(tuple(request["shape"]), tuple(request["spacing_mm"]))
    base = peak_mb()
    began = perf_counter()
    segmenter = Segmenter(
        checkpoint, engine=request["engine"], precision=request["precision"], threads=request["threads"]
    )
    first = segmenter.segment(volume)
    build_s = perf_counter() - began - first.timings_s["preprocess"] - first.timings_s["restore"]
    network = []
    seconds = repeat(lambda: network.append(segmenter.segment(volume).timings_s["network"]), runs=RUNS, limit_s=LIMIT_S)
    shape = [
        max(1, round(n * s / m))
        for n, s, m in zip(volume.shape, volume.spacing_mm, checkpoint.preprocessing.spacing_mm, strict=True)
    ]
    windows = len(plan_windows(tuple(shape[::-1]), segmenter.max_window_voxels))
    return {
        "seconds": Timing.of(seconds).as_json(),
        "network": Timing.of(network).as_json(),
        "peak_mb": round(peak_mb(), 1),
        "base_mb": round(base, 1),
        "windows": windows,
        "build_s": round(build_s, 2),
    }


if __name__ == "__main__":
    print(json.dumps(_measure(json.load(sys.stdin))))
