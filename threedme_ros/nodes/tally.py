"""Counts and the last error of a node that talks to the outside -> diagnostic_msgs/DiagnosticStatus."""

from __future__ import annotations

import threading

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

ERROR_SHOWN_S = 30.0
"""An error raises the level this long; it stays readable as ``last_error``."""


class Tally:
    """``counts`` start at zero under the given names; safe from any thread. Times are s of a monotonic clock."""

    def __init__(self, *names: str) -> None:
        self._lock = threading.Lock()
        self.counts = dict.fromkeys(names, 0)
        self.last_error = ""
        self._error_s = float("-inf")

    def count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1

    def error(self, what: str, reason: str, now_s: float) -> None:
        """Counted as ``what``; ``reason`` in one line."""
        with self._lock:
            self.counts[what] += 1
            self.last_error, self._error_s = reason, now_s

    def status(self, name: str, message: str, now_s: float, values: dict[str, object]) -> DiagnosticStatus:
        """OK with ``message``, or WARN with the last error for a while after it."""
        with self._lock:
            recent = now_s - self._error_s < ERROR_SHOWN_S
            values = {**values, **self.counts, "last_error": self.last_error}
            level, text = (DiagnosticStatus.WARN, self.last_error) if recent else (DiagnosticStatus.OK, message)
        pairs = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
        return DiagnosticStatus(level=level, name=name, message=text, hardware_id="threedme_ros", values=pairs)
