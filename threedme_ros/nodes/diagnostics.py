"""What the perception node says about itself: counters, ages and latencies -> diagnostic_msgs/DiagnosticArray."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from threedme_ros.inference.incremental import UPDATES

LATENCIES_KEPT = 200


class Health:
    """Counts every volume exactly once and remembers the last result and the last error; safe from any thread.

    seen = segmented + refused + failed + replaced + ignored + those still waiting or running. Published, from the first
    volume of a source that arrived on = seen + overwritten: those the middleware replaced before we could see them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counts = dict.fromkeys(("seen", "segmented", "replaced", "refused", "failed", "ignored", "overwritten"), 0)
        self.passes = dict.fromkeys(UPDATES, 0)
        """Segmented volumes by what the network saw of them."""
        self._last_pass = ""
        self.sources = 0
        """Publishers connected to `volume`."""
        self.last_error = ""
        self._broken = False  # the last outcome was an error of ours, not of the input
        self._stale_reason = ""
        self._warnings: tuple[str, ...] = ()
        self._latencies_s: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self._last_result_s: float | None = None

    def count(self, what: str, times: int = 1) -> None:
        with self._lock:
            self.counts[what] += times

    def segmented(self, now_s: float, stamp_s: float, warnings: tuple[str, ...] = (), update: str = UPDATES[0]) -> None:
        """A result went out at ``now_s`` for the volume acquired at ``stamp_s``, both in s of the node's clock.

        update: one of `UPDATES`, what the network saw of it.
        """
        with self._lock:
            self.counts["segmented"] += 1
            self.passes[update] += 1
            self._last_pass = update
            self._latencies_s.append(now_s - stamp_s)
            self._last_result_s = now_s
            self._warnings = warnings
            self._stale_reason, self._broken = "", False

    def refused(self, reason: str) -> None:
        """The input was no volume we take; the anatomy shown is from before it."""
        self._error("refused", reason, broken=False)

    def failed(self, reason: str) -> None:
        """We could not segment a volume that looked good."""
        self._error("failed", reason, broken=True)

    def error(self, reason: str) -> None:
        """Something other than a volume went wrong (a transition, a recomputation)."""
        with self._lock:
            self.last_error, self._broken = reason, True

    def warn(self, reason: str) -> None:
        """Worth reading, but the anatomy stands (a subscriber whose QoS does not match)."""
        with self._lock:
            self.last_error = reason

    def cleared(self) -> None:
        """A new configuration: errors and results of the old one no longer count; the totals stay."""
        with self._lock:
            self.last_error, self._stale_reason, self._broken, self._warnings = "", "", False, ()
            self._last_result_s = None
            self._latencies_s.clear()

    def _error(self, what: str, reason: str, broken: bool) -> None:
        with self._lock:
            self.counts[what] += 1
            self.last_error, self._broken = reason, broken
            self._stale_reason = f"last volume {what}: {reason}"

    def status(
        self, name: str, state: str, now_s: float, stale_after_s: float, engine: Mapping[str, object]
    ) -> DiagnosticStatus:
        """One status; ``engine``: what runs (checkpoint hash, engine, precision, device), shown as it is."""
        with self._lock:
            age_s = None if self._last_result_s is None else now_s - self._last_result_s
            aged = age_s is not None and 0 < stale_after_s < age_s
            stale_reason = self._stale_reason or (f"last result is {age_s:.1f} s old" if aged else "")
            level, message = self._level(state, stale_reason)
            values = {
                "state": state,
                **engine,
                "volume_sources": self.sources,
                **{f"volumes_{what}": n for what, n in self.counts.items()},
                **{f"passes_{what}": n for what, n in self.passes.items()},
                "last_pass": self._last_pass,
                "age_of_last_result_s": "" if age_s is None else f"{age_s:.3f}",
                "anatomy": "none" if age_s is None else "stale" if stale_reason else "current",
                **_percentiles_ms(self._latencies_s),
                "last_error": self.last_error,
                "warnings": "; ".join(self._warnings),
            }
        pairs = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
        return DiagnosticStatus(level=level, name=name, message=message, hardware_id="threedme_ros", values=pairs)

    def _level(self, state: str, stale_reason: str) -> tuple[bytes, str]:
        if self._broken:
            return DiagnosticStatus.ERROR, self.last_error
        if stale_reason:
            return DiagnosticStatus.WARN, f"anatomy is stale: {stale_reason}"
        if self._warnings:
            return DiagnosticStatus.WARN, "; ".join(self._warnings)
        return DiagnosticStatus.OK, state


def diagnostics_message(status: DiagnosticStatus, stamp) -> DiagnosticArray:
    message = DiagnosticArray(status=[status])
    message.header.stamp = stamp
    return message


def _percentiles_ms(latencies_s: deque[float]) -> dict[str, str]:
    if not latencies_s:
        return dict.fromkeys(("stamp_to_publish_last_ms", "stamp_to_publish_p50_ms", "stamp_to_publish_p95_ms"), "")
    p50, p95 = np.percentile(np.array(latencies_s) * 1e3, (50, 95))
    return {
        "stamp_to_publish_last_ms": f"{latencies_s[-1] * 1e3:.1f}",
        "stamp_to_publish_p50_ms": f"{p50:.1f}",
        "stamp_to_publish_p95_ms": f"{p95:.1f}",
    }
