"""What a run's budget is counted in: the wall clock, or the CPU seconds of the process that trains."""

from __future__ import annotations

import time

CLOCKS = {"wall": time.monotonic, "cpu": time.process_time}
"""cpu: with one thread, what a quiet core would take, whatever else runs on the machine. The processes that draw the
windows are not counted, nor is waiting for them (a run's log says what share of the wall clock that was)."""


class Stopwatch:
    """Seconds on the clock called ``name`` (one of `CLOCKS`) and on the wall."""

    def __init__(self, name: str) -> None:
        self._clock = CLOCKS[name]
        self._last = self._now()

    def lap(self) -> tuple[float, float]:
        """(on the clock, on the wall) since the last lap, or since it was made."""
        last, self._last = self._last, self._now()
        return tuple(now - then for now, then in zip(self._last, last, strict=True))

    def _now(self) -> tuple[float, float]:
        return self._clock(), time.monotonic()
