"""Is the source of the anatomy well? From what it says of itself, which must be newer than what it says of a volume."""

from __future__ import annotations

from dataclasses import dataclass

SILENT_S = 3.0
"""Perception speaks once a second; after this long it is lost."""


@dataclass
class Watch:
    """``name``: whose diagnostics are watched. All times in s of one monotonic clock."""

    name: str
    _heard_s: float | None = None
    _alarm: str = ""
    _sourceless: bool = False

    def heard(self, now_s: float, *, well: bool, message: str, sources: str | None = None) -> None:
        """sources: how many volume sources are connected to it, where it says so; what is no number is not well."""
        self._heard_s = now_s
        self._alarm = "" if well else f"{self.name}: {message}"
        try:
            self._sourceless = sources is not None and int(sources) == 0
        except ValueError:
            self._sourceless = False
            self._alarm = self._alarm or f"{self.name}: volume_sources {sources[:40]!r}: expected a number"

    def verdict(self, now_s: float, arrived_s: float) -> str | None:
        """Why the volume that arrived at ``arrived_s`` is not to be trusted, or ""; None: not known yet, ask again."""
        if self._heard_s is not None and self._heard_s >= arrived_s:
            return self._alarm
        if now_s - arrived_s < SILENT_S:
            return None
        return self._silence(now_s)

    def doubts(self, now_s: float) -> list[str]:
        """What is wrong with the source now, a line each."""
        if self._heard_s is None or now_s - self._heard_s > SILENT_S:
            return [self._silence(now_s)]
        lines = [self._alarm] if self._alarm else []
        return [*lines, f"{self.name}: no volume source connected"] if self._sourceless else lines

    def _silence(self, now_s: float) -> str:
        if self._heard_s is None:
            return f"{self.name}: no diagnostics yet"
        return f"{self.name}: no diagnostics for {now_s - self._heard_s:.0f} s"
