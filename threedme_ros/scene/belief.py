"""Which anatomy to plan around, and how much larger than last seen: the fail-closed rules.

A structure is *confirmed* by a good volume that shows it with confidence and plausibly like the time before. Whatever
else happens (no volume, a volume refused or out of the checkpoint's scope, low confidence, an implausible change, a
lost source), the structure stays as last accepted, its age runs, and past `Rules.stale_after_s` it grows by a stated
rate up to a limit. Only being seen gone in several good volumes in a row, or an operator's word, removes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from threedme_ros.geometry.plausibility import Extent, implausible_change


@dataclass(frozen=True)
class Rules:
    """stale_after_s: the age from which a structure grows, by growth_mm_per_s, in steps, up to growth_limit_mm.

    gone_after: good volumes in a row without a structure that remove it. min_confidence: mean over its boundary, 0..1.
    """

    stale_after_s: float = 10.0
    growth_mm_per_s: float = 0.1
    growth_limit_mm: float = 5.0
    growth_step_mm: float = 0.5
    gone_after: int = 5
    min_confidence: float = 0.5


@dataclass(frozen=True)
class Seen:
    """A structure in one volume. ``shape``: equal for equal geometry, wherever it lies."""

    extent: Extent
    confidence: float
    shape: int


@dataclass(frozen=True)
class Look:
    """One volume's result. ``key``: by which the caller finds its geometry. ``alarm``: why not to trust it."""

    key: object
    frame_id: str
    seen: Mapping[str, Seen]
    midline_mm: float | None = None
    alarm: str = ""


@dataclass(frozen=True)
class Wanted:
    """A structure as the scene should hold it: as in the look ``key``, grown by ``extra_mm`` besides its margin."""

    key: object
    frame_id: str
    shape: int
    centre_mm: tuple[float, float, float]
    extra_mm: float

    @property
    def form(self) -> tuple:
        """Equal for objects that differ at most in where they are."""
        return self.frame_id, self.shape, self.extra_mm


@dataclass
class _Kept:
    look: Look
    seen: Seen
    confirmed_s: float
    gone: int = 0
    doubt: str = ""


@dataclass
class Belief:
    """Fed by `observe`; `wanted` says what to plan around at a time. All times in s of one monotonic clock."""

    rules: Rules = field(default_factory=Rules)
    released: set[str] = field(default_factory=set)
    """Structures that are really gone, and may leave the scene."""
    _kept: dict[str, _Kept] = field(default_factory=dict)
    _strangers: dict[str, int] = field(default_factory=dict)
    _last: Look | None = None
    _alarm: str = ""

    def observe(self, now_s: float, look: Look) -> None:
        self._last, self._alarm = look, look.alarm
        frame_id = self.frame_id
        if frame_id is not None and look.frame_id != frame_id:
            self._alarm = f"frame changed from {frame_id!r} to {look.frame_id!r}"
        for name, seen in look.seen.items():
            self._judge(now_s, name, seen, look)
        for name in [*self._kept, *self._strangers]:
            if name not in look.seen:
                self._missed(name)

    def accept(self, now_s: float) -> bool:
        """An operator's word: the last look is the truth, whatever was against it. False if there is none."""
        if self._last is None:
            return False
        self._alarm = ""
        self.released |= set(self._kept) | set(self._strangers)
        self.released -= set(self._last.seen)
        self._kept = {name: _Kept(self._last, seen, now_s) for name, seen in self._last.seen.items()}
        self._strangers = {}
        return True

    def found(self, names: Iterable[str]) -> None:
        """The scene holds these from before we started: they stay until good volumes show that they are gone."""
        for name in names:
            if name not in self._kept and name not in self.released:
                self._strangers.setdefault(name, 0)

    @property
    def frame_id(self) -> str | None:
        """Of what is kept; None before the first structure."""
        return next((kept.look.frame_id for kept in self._kept.values()), None)

    def wanted(self, now_s: float) -> dict[str, Wanted]:
        return {
            name: Wanted(
                kept.look.key,
                kept.look.frame_id,
                kept.seen.shape,
                kept.seen.extent.centre_mm,
                self._growth_mm(kept, now_s),
            )
            for name, kept in self._kept.items()
        }

    def doubts(self, now_s: float) -> list[str]:
        """What is wrong, a line each: first what concerns the whole volume. Empty when all is confirmed and fresh."""
        stale = [name for name, kept in self._kept.items() if now_s - kept.confirmed_s > self.rules.stale_after_s]
        lines = [self._alarm] if self._alarm else []
        lines += [f"{name}: {kept.doubt}" for name, kept in self._kept.items() if kept.doubt]
        if stale:
            oldest_s = max(now_s - self._kept[name].confirmed_s for name in stale)
            what = "all structures" if len(stale) == len(self._kept) else ", ".join(stale)
            lines.append(f"not confirmed for {oldest_s:.0f} s, growing: {what}")
        return lines

    def at_limit(self, now_s: float) -> bool:
        """Some structure has grown as far as it may: from here on, age is no longer paid for by distance."""
        return any(self._growth_mm(kept, now_s) >= self.rules.growth_limit_mm for kept in self._kept.values())

    def _judge(self, now_s: float, name: str, seen: Seen, look: Look) -> None:
        kept = self._kept.get(name)
        unsure = ""
        if seen.confidence < self.rules.min_confidence:
            unsure = f"confidence {seen.confidence:.2f}, below {self.rules.min_confidence:.2f}"
        if kept is None:
            if self._alarm and self._kept and look.frame_id != self.frame_id:
                return  # of another frame than all the rest: it cannot be placed beside them
            # An obstacle known badly is better than none. Unconfirmed: it grows from now on.
            trusted = not (unsure or self._alarm)
            first_s = now_s if trusted else now_s - self.rules.stale_after_s
            self._kept[name] = _Kept(look, seen, first_s, doubt=unsure)
            self._strangers.pop(name, None)
            self.released.discard(name)
            return
        if self._alarm:
            return
        kept.gone = 0
        change = implausible_change(kept.seen.extent, seen.extent, midline_mm=look.midline_mm)
        kept.doubt = f"{change}; the old one is kept" if change else unsure
        if not kept.doubt:
            kept.look, kept.seen, kept.confirmed_s = look, seen, now_s

    def _missed(self, name: str) -> None:
        if self._alarm:
            return
        if name in self._kept:
            kept = self._kept[name]
            kept.gone += 1
            kept.doubt = f"gone in {kept.gone} of {self.rules.gone_after} volumes; kept"
            gone = kept.gone
        else:
            self._strangers[name] += 1
            gone = self._strangers[name]
        if gone >= self.rules.gone_after:
            self._kept.pop(name, None)
            self._strangers.pop(name, None)
            self.released.add(name)

    def _growth_mm(self, kept: _Kept, now_s: float) -> float:
        late_s = now_s - kept.confirmed_s - self.rules.stale_after_s
        if late_s <= 0:
            return 0.0
        steps = np.ceil(late_s * self.rules.growth_mm_per_s / self.rules.growth_step_mm)  # never less than the rate
        return float(min(steps * self.rules.growth_step_mm, self.rules.growth_limit_mm))
