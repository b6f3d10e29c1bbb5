"""Brings another process's planning scene to what it should hold, one acknowledged request at a time.

The keeper compares what is wanted with what was acknowledged. So a refusal, a time-out, a restarted server or an object
that somebody removed are all the same: not acknowledged, and sent again, after a pause that doubles.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from threedme_ros.scene.belief import Wanted


class Operation(StrEnum):
    MOVE = "move"
    ADD = "add"
    REMOVE = "remove"


@dataclass(frozen=True)
class Change:
    """One object's next step; ``wanted`` is None for REMOVE. ``registration``: how often it had changed by then."""

    operation: Operation
    name: str
    wanted: Wanted | None
    registration: int


@dataclass(frozen=True)
class Pace:
    """timeout_s: an unanswered request is given up. The pause after a failure doubles, first_s up to longest_s."""

    timeout_s: float = 5.0
    first_s: float = 0.5
    longest_s: float = 10.0


@dataclass
class _Pause:
    failures: int = 0
    until_s: float = float("-inf")


@dataclass
class Keeper:
    """All times in s of one monotonic clock. At most one request is under way: from `next` to its outcome."""

    pace: Pace = field(default_factory=Pace)
    last_error: str = ""
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys((*Operation, "refused", "timeouts", "lost"), 0)
    )
    _held: dict[str, Change] = field(default_factory=dict)
    _unsure: set[str] = field(default_factory=set)  # the scene may hold these: asked for, but not acknowledged
    _registration: int = 0
    _under_way: tuple[Change, ...] = ()
    _sent_s: float | None = None
    _pauses: dict[str, _Pause] = field(default_factory=dict)  # by object; of a silent server under ""

    def registration_changed(self) -> None:
        """The patient moved against the robot: every object has to be placed again."""
        self._registration += 1

    def pending(self, wanted: Mapping[str, Wanted], released: Collection[str] = ()) -> list[Change]:
        """Everything that is not yet as wanted: first what moves, then what is missing, then what was added longest
        ago (so that one that grows on and on does not hold up the others), last what frees space.

        Only ``released`` names are removed; anything else the scene holds stays.
        """
        changes = [change for name, want in wanted.items() if (change := self._change(name, want))]
        age = {name: order for order, name in enumerate(self._held)}  # oldest first; -1: missing
        changes.sort(key=lambda change: (change.operation is not Operation.MOVE, age.get(change.name, -1)))
        gone = (set(self._held) | self._unsure) & set(released) - set(wanted)
        return [*changes, *(Change(Operation.REMOVE, name, None, self._registration) for name in sorted(gone))]

    def next(self, now_s: float, wanted: Mapping[str, Wanted], released: Collection[str] = ()) -> tuple[Change, ...]:
        """What to send now in one request: all that move together, or one other change, or nothing.

        It is under way until its outcome is told; its time runs from `sent`.
        """
        if self._under_way and self._sent_s is not None and now_s - self._sent_s >= self.pace.timeout_s:
            self.counts["timeouts"] += 1
            self._pause("", now_s)
            self.failed(now_s, f"no answer in {self.pace.timeout_s:g} s", pause=False)
        if self._under_way or now_s < self._until_s(""):
            return ()
        due = [change for change in self.pending(wanted, released) if now_s >= self._until_s(change.name)]
        moves = [change for change in due if change.operation is Operation.MOVE]
        self._under_way = tuple(moves or due[:1])
        return self._under_way

    def sent(self, now_s: float) -> None:
        self._sent_s = now_s

    def acknowledged(self) -> None:
        for change in self._under_way:
            self._forget(change)
            self._unsure.discard(change.name)
            self._pauses.pop(change.name, None)
            self.counts[change.operation] += 1
            if change.operation is not Operation.REMOVE:
                self._held[change.name] = change
        self._pauses.pop("", None)
        self._under_way, self._sent_s = (), None

    def refused(self, now_s: float) -> None:
        """The server said no. It refuses to remove only what it does not hold: then there is nothing left to do."""
        what = ", ".join(f"{change.operation} {change.name}" for change in self._under_way)
        absent = [change.name for change in self._under_way if change.operation is Operation.REMOVE]
        moves = any(change.operation is Operation.MOVE for change in self._under_way)
        self.counts["refused"] += 1
        # objects that cannot be moved are added again, at once
        self.failed(now_s, f"the planning scene refused to {what}", pause=not moves and not absent)
        self._unsure -= set(absent)
        self._pauses.pop("", None)

    def failed(self, now_s: float, reason: str, pause: bool = True) -> None:
        """The request under way did not succeed; nobody knows whether the scene holds its objects now."""
        for change in self._under_way:
            self._forget(change)
            self._unsure.add(change.name)
            if pause:
                self._pause(change.name, now_s)
        self._under_way, self._sent_s, self.last_error = (), None, reason

    def server_lost(self) -> None:
        """The server is gone, and a new one will hold nothing of ours."""
        if self._held or self._under_way:
            self.counts["lost"] += 1
        self._held, self._unsure, self._pauses = {}, set(), {}
        self._under_way, self._sent_s = (), None

    def present(self, names: Collection[str]) -> None:
        """What the server says it holds: what is missing is sent again, what nobody asked for is known from now on."""
        busy = {change.name for change in self._under_way}
        missing = set(self._held) - set(names) - busy
        for name in missing:
            del self._held[name]
        self.counts["lost"] += bool(missing)
        self._unsure = (self._unsure & busy) | (set(names) - set(self._held))

    @property
    def held(self) -> frozenset[str]:
        """What was acknowledged and not lost since."""
        return frozenset(self._held)

    @property
    def busy(self) -> bool:
        return bool(self._under_way)

    def _change(self, name: str, want: Wanted) -> Change | None:
        held = self._held.get(name)
        if held is None or held.wanted.form != want.form:
            return Change(Operation.ADD, name, want, self._registration)
        if held.registration != self._registration or held.wanted.centre_mm != want.centre_mm:
            return Change(Operation.MOVE, name, want, self._registration)
        return None

    def _forget(self, change: Change) -> None:
        self._held.pop(change.name, None)

    def _pause(self, name: str, now_s: float) -> None:
        pause = self._pauses.setdefault(name, _Pause())
        pause.until_s = now_s + min(self.pace.first_s * 2**pause.failures, self.pace.longest_s)
        pause.failures += 1

    def _until_s(self, name: str) -> float:
        return self._pauses[name].until_s if name in self._pauses else float("-inf")
