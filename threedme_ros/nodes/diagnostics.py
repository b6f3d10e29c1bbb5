"""What the perception node says about itself: counters, ages and latencies -> diagnostic_msgs/DiagnosticArray.

| level | when |
|---|---|
| ERROR | what went wrong last was ours: a volume failed, an engine hung, a transition failed; until the next result |
| STALE | with `stale_after_s`: the source sent nothing for so long, or the last result is older; until the next one |
| WARN | the last volume was refused, its stamp was odd, it gave warnings, or several sources publish on `volume` |
| OK | otherwise |

Ages run on a clock that never steps: neither simulated time nor a system clock that is set makes one negative.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from threedme_ros.inference.incremental import UPDATES
from threedme_ros.inference.scope import Scope
from threedme_ros.nodes.stamps import StampWatch

LATENCIES_KEPT = 200


class Health:
    """Counts every volume exactly once and remembers the last result and the last error; safe from any thread.

    seen = segmented + refused + failed + replaced + ignored + those still waiting or running. Published, from the first
    volume of a source that arrived on = seen + overwritten: those the middleware replaced before we could see them.
    clock: s, never steps.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self.counts = dict.fromkeys(("seen", "segmented", "replaced", "refused", "failed", "ignored", "overwritten"), 0)
        self.passes = dict.fromkeys(UPDATES, 0)
        """Segmented volumes by what the network saw of them."""
        self._last_pass = ""
        self.sources = 0
        """Publishers connected to `volume`."""
        self.last_error = ""
        self._broken = ""  # the last outcome, if it was an error of ours, not of the input
        self._stale_reason = ""
        self._odd_stamp, self._stamps = "", dict.fromkeys(StampWatch.ODD, 0)
        self._warnings: tuple[str, ...] = ()
        self._scope: Scope | None = None
        self._latencies_s: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self._last_result_s: float | None = None
        self._last_seen_s: float | None = None
        self._listening_s: float | None = None

    def count(self, what: str, times: int = 1) -> None:
        with self._lock:
            self.counts[what] += times

    def seen(self) -> None:
        """A volume arrived, whatever becomes of it."""
        with self._lock:
            self.counts["seen"] += 1
            self._last_seen_s = self._clock()

    def disabled(self) -> None:
        """A volume came while the node is told not to segment, and is ignored: what is shown is older."""
        with self._lock:
            self.counts["ignored"] += 1
            self._stale_reason = "a newer volume came while disabled"

    def stamped(self, odd: str, counts: Mapping[str, int]) -> None:
        """What is odd about the stamp of the last volume (see `StampWatch`), and how many were."""
        with self._lock:
            self._odd_stamp, self._stamps = odd, dict(counts)

    def listening(self, on: bool) -> None:
        """From now on a source is expected to send, or no longer."""
        with self._lock:
            self._listening_s = self._clock() if on else None
            if not on:
                self.sources = 0

    def segmented(
        self,
        latency_s: float,
        warnings: tuple[str, ...] = (),
        update: str = UPDATES[0],
        scope: Scope | None = None,
    ) -> None:
        """A result went out, ``latency_s`` after the stamp of its volume by the node's clock.

        A negative one tells of the clocks, not of us: it is no latency. update: one of `UPDATES`, what the network saw.
        scope: whether the volume is what the checkpoint was made for, if it can tell.
        """
        with self._lock:
            self.counts["segmented"] += 1
            self.passes[update] += 1
            self._last_pass = update
            if latency_s >= 0:
                self._latencies_s.append(latency_s)
            self._last_result_s = self._clock()
            self._warnings, self._scope = warnings, scope
            self._stale_reason = self._broken = ""

    def refused(self, reason: str) -> None:
        """The input was no volume we take; the anatomy shown is from before it."""
        with self._lock:
            self.counts["refused"] += 1
            self.last_error, self._broken = reason, ""
            self._stale_reason = f"last volume refused: {reason}"

    def failed(self, reason: str) -> None:
        """We could not segment a volume that looked good."""
        with self._lock:
            self.counts["failed"] += 1
            self.last_error = self._broken = reason
            self._stale_reason = f"last volume failed: {reason}"

    def error(self, reason: str) -> None:
        """Something other than a volume went wrong (a transition, a recomputation)."""
        with self._lock:
            self.last_error = self._broken = reason

    def warn(self, reason: str) -> None:
        """Worth reading, but the anatomy stands (a subscriber whose QoS does not match)."""
        with self._lock:
            self.last_error = reason

    def cleared(self) -> None:
        """A new configuration: errors and results of the old one no longer count; the totals stay."""
        with self._lock:
            self.last_error = self._stale_reason = self._broken = self._odd_stamp = ""
            self._warnings, self._scope = (), None
            self._last_result_s = self._last_seen_s = None
            self._latencies_s.clear()

    def withdrawn(self) -> None:
        """What was published is no longer there."""
        with self._lock:
            self._last_result_s, self._stale_reason = None, ""

    def status(self, name: str, state: str, stale_after_s: float, shown: Mapping[str, object]) -> DiagnosticStatus:
        """One status; ``shown``: what runs (checkpoint hash, engine, precision, device), as it is."""
        with self._lock:
            now_s = self._clock()
            age_s = None if self._last_result_s is None else now_s - self._last_result_s
            silent_s = self._silent_s(now_s)
            late = [
                text.format(seconds)
                for text, seconds in (("no volume for {:.1f} s", silent_s), ("last result is {:.1f} s old", age_s))
                if seconds is not None and 0 < stale_after_s < seconds
            ]
            stale = self._stale_reason or late
            source = self._source(silent_s, stale_after_s)
            level, message = self._level(f"{state}, no source any more" if source == "gone" else state, late)
            values = {
                "state": state,
                **shown,
                "volume_sources": self.sources,
                "source": source,
                **{f"volumes_{what}": n for what, n in self.counts.items()},
                **{f"passes_{what}": n for what, n in self.passes.items()},
                **{f"stamps_{what}": n for what, n in self._stamps.items()},
                "last_pass": self._last_pass,
                "age_of_last_result_s": "" if age_s is None else f"{age_s:.3f}",
                "anatomy": "none" if age_s is None else "stale" if stale else "current",
                "scope_score": "" if self._scope is None else f"{self._scope.score:.2f}",
                "scope_threshold": "" if self._scope is None else f"{self._scope.threshold:.2f}",
                **_percentiles_ms(self._latencies_s),
                "last_error": self.last_error,
                "warnings": "; ".join(self._warnings),
            }
        pairs = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
        return DiagnosticStatus(level=level, name=name, message=message, hardware_id="threedme_ros", values=pairs)

    def _silent_s(self, now_s: float) -> float | None:
        """Since the last volume, or since we listen if that is later; None while we do not."""
        if self._listening_s is None:
            return None
        return now_s - max(self._listening_s, self._last_seen_s or self._listening_s)

    def _source(self, silent_s: float | None, stale_after_s: float) -> str:
        if silent_s is None:
            return "off"
        if 0 < stale_after_s < silent_s:
            return "stale"
        if self._last_seen_s is None:
            return "waiting"
        return "current" if self.sources else "gone"

    def _level(self, state: str, late: list[str]) -> tuple[bytes, str]:
        """The worst that holds, and everything that does."""
        broken = [self._broken] if self._broken else []
        stale = [f"anatomy is stale: {self._stale_reason}"] if self._stale_reason and not broken else []
        crowd = [f"{self.sources} publishers on volume: expected one"] if self.sources > 1 else []
        odd = [self._odd_stamp] if self._odd_stamp else []
        notes = (*stale, *crowd, *odd, *self._warnings)
        levels = (
            (broken, DiagnosticStatus.ERROR),
            (late, DiagnosticStatus.STALE),
            (notes, DiagnosticStatus.WARN),
            (True, DiagnosticStatus.OK),
        )
        level = next(level for holds, level in levels if holds)
        return level, "; ".join((*broken, *late, *notes)) or state


def diagnostics_message(stamp, *statuses: DiagnosticStatus) -> DiagnosticArray:
    message = DiagnosticArray(status=statuses)
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
