"""Repeated measurements: median and spread, and what this machine is."""

from __future__ import annotations

import os
import platform
import resource
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

MIN_RUNS = 3


@dataclass(frozen=True)
class Timing:
    """Seconds of wall clock: the median of ``runs``, and the quartiles below and above it."""

    median_s: float
    low_s: float
    high_s: float
    runs: int

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Timing:
        seconds = list(seconds)
        if not seconds:
            raise ValueError("no measurement: expected at least one")
        low, median, high = np.percentile(seconds, (25, 50, 75))
        return cls(float(median), float(low), float(high), len(seconds))

    def as_json(self) -> dict[str, float]:
        return {name: round(value, 5) for name, value in asdict(self).items()}

    def __str__(self) -> str:
        return f"{text_of(self.median_s)} ({text_of(self.low_s)} to {text_of(self.high_s)}, {self.runs} runs)"


def text_of(seconds: float) -> str:
    """``1.23 s`` or ``45 ms``: three figures."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def repeat(work: Callable[[], object], *, runs: int, limit_s: float) -> list[float]:
    """Seconds of each call: ``runs`` of them, fewer where they would pass ``limit_s`` together, at least three."""
    seconds: list[float] = []
    while len(seconds) < runs and (len(seconds) < min(MIN_RUNS, runs) or sum(seconds) < limit_s):
        began = perf_counter()
        work()
        seconds.append(perf_counter() - began)
    return seconds


def hardware() -> str:
    """The processor, its cores and what it computes in, and the GPU where torch sees one."""
    import torch

    flags, model = set(), platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.exists() else ():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            model = value.strip()
        elif key.strip() == "flags":
            flags = set(value.split())
    able = [name for flag, name in (("amx_bf16", "AMX"), ("avx512_bf16", "AVX512-BF16")) if flag in flags]
    text = f"{model}, {os.cpu_count()} cores" + (f", {' and '.join(able)}" if able else ", no bf16 arithmetic")
    if torch.cuda.is_available():
        text += f"; {torch.cuda.get_device_name()}"
    return text


def peak_mb() -> float:
    """The most memory this process has held so far, in MB; on Linux not by getrusage, which begins with the parent."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1.024e-3
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1e6 if sys.platform == "darwin" else 1e3 / 1.024)


def idle_share(seconds: float = 0.5) -> float:
    """How much of the machine nobody uses, 0..1: below 0.9 the figures are not worth much."""
    from time import sleep

    def ticks() -> tuple[int, int]:
        fields = [int(n) for n in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
        return fields[3] + fields[4], sum(fields[:8])

    if not Path("/proc/stat").exists():
        return float("nan")
    idle, total = ticks()
    sleep(seconds)
    later_idle, later_total = ticks()
    return (later_idle - idle) / max(later_total - total, 1)
