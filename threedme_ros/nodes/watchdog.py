"""Is the work under way stuck? What a job may take is learned from those before it. No ROS, no topic.

A job is given up when it runs longer than `Limits.hang_after_s` and longer than `SLACK` times the slowest of the last
`DURATIONS_KEPT`, and the warm-up as long as there are few; a job larger than any before may take longer in proportion,
up to `MOST_GROWTH` times. The slowest, since one in many may be of another kind: a full pass among updates. While an
engine builds what it needs for a shape, which may take minutes, `Limits.build_timeout_s` holds instead, and no limit is
ever longer than that. Python cannot end a thread: one that is given up is left behind, and what it brings back later is
dropped.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

SLACK = 10.0
DURATIONS_KEPT = 200
FEW = 5
MOST_GROWTH = 10.0
POLL_S = 0.1

Result = TypeVar("Result")


class HangError(RuntimeError):
    """Something did not return in time; its thread is left behind."""


@dataclass(frozen=True)
class Limits:
    """In s. hang_after_s: 0 gives nothing up, ever."""

    hang_after_s: float
    build_timeout_s: float

    @property
    def build_s(self) -> float:
        return self.build_timeout_s if self.hang_after_s else float("inf")


class LeftBehind:
    """Threads that were given up. Safe from any thread."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []

    def add(self, thread: threading.Thread) -> None:
        self._threads.append(thread)

    @property
    def count(self) -> int:
        """Those that are still there."""
        return sum(thread.is_alive() for thread in self._threads)


class Durations:
    """What the last jobs took. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: deque[tuple[float, int]] = deque(maxlen=DURATIONS_KEPT)
        self._warm_up: tuple[float, int] = (0.0, 1)

    def warmed_up(self, seconds: float, size: int) -> None:
        """What the engine's first run took; size: in voxels."""
        with self._lock:
            self._warm_up = seconds, size

    def learn(self, seconds: float, size: int) -> None:
        """size: of the job, in voxels."""
        with self._lock:
            self._kept.append((seconds, size))

    def limit_s(self, limits: Limits, size: int) -> float:
        """What a job of ``size`` voxels may take, 0 while that is not known; infinity for ever."""
        if not limits.hang_after_s:
            return float("inf")
        with self._lock:
            kept = list(self._kept)
            known = kept if len(kept) >= FEW else [*kept, self._warm_up]
        growth = min(max(1.0, size / max(size for _, size in known)), MOST_GROWTH)
        limit_s = max(limits.hang_after_s, SLACK * growth * max(seconds for seconds, _ in known))
        return min(limit_s, max(limits.build_timeout_s, limits.hang_after_s))


class Watch:
    """Over the jobs of one thread, one at a time. Exactly one side gets a job's outcome: `end` or `give_up`.

    clock: s, never steps.
    """

    def __init__(self, limits: Limits, durations: Durations, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._durations, self._clock = limits, durations, clock
        self._lock = threading.Lock()
        self._began_s: float | None = None
        self._size = 0
        self._built = self._building = False
        self._phase_s = 0.0  # when the job began, or began or ended to build
        self.what = self.stage = ""
        self.given_up = False

    @property
    def running(self) -> bool:
        """A job is under way and not given up."""
        return self._began_s is not None and not self.given_up

    def begin(self, what: str) -> None:
        """The thread starts on a job. Unless `enter` is told its size, its duration says nothing about others."""
        with self._lock:
            self._began_s = self._phase_s = self._clock()
            self.what, self._size, self._built, self._building = what, 0, False, False
            self.stage = ""

    def enter(self, stage: str, size: int = 0) -> None:
        """The job comes to ``stage``; HangError if it was given up before that, so that it goes no further.

        size: of the job, in voxels, once that is known. (A message's bytes say little: zeros compress a thousandfold.)
        """
        with self._lock:
            if self.given_up:
                raise HangError(f"{stage}: given up before")
            self.stage, self._size = stage, size or self._size

    def end(self) -> bool:
        """The thread is done with it. False if it was given up: then its outcome is not the thread's to tell."""
        with self._lock:
            if not self.running:
                return False
            if self._size and not self._built:
                self._durations.learn(self._clock() - self._began_s, self._size)
            self._began_s = None
            return True

    def give_up(self) -> bool:
        """The job under way is lost from now on, and its thread with it. False if there is none, or no longer."""
        with self._lock:
            if not self.running:
                return False
            self.given_up = True
            return True

    def overdue(self, building: bool) -> str:
        """How long the job has been going on, in words, if that is too long; empty if all is well.

        To be asked at least once a second. building: an engine is being built right now.
        """
        with self._lock:
            if not self.running:
                return ""
            now_s = self._clock()
            if building != self._building:
                self._building, self._phase_s = building, now_s
            self._built |= building
            limit_s = self._limit_s()
            if now_s - self._phase_s <= limit_s:
                return ""
            return f"{'building' if building else 'no result'} for {limit_s:.0f} s"

    def describe(self) -> str:
        """What diagnostics show: idle, or what is under way, for how long, and the limit."""
        with self._lock:
            if not self.running:
                return "stuck" if self.given_up else "idle"
            what, passed_s = "building" if self._building else self.what, self._clock() - self._phase_s
            return f"{what} for {passed_s:.1f} s of at most {self._limit_s():.0f}"

    def _limit_s(self) -> float:
        return self._limits.build_s if self._building else self._durations.limit_s(self._limits, self._size)


def within(
    seconds: float,
    work: Callable[[], Result],
    name: str,
    left_behind: LeftBehind,
    alive: Callable[[], bool] = lambda: True,
) -> Result:
    """``work()`` on a thread called ``name``; HangError if it takes longer, InterruptedError once ``alive`` is false.

    The thread is then left behind.
    """
    outcome: list[tuple[bool, object]] = []
    done = threading.Event()

    def run() -> None:
        try:
            outcome.append((True, work()))
        except BaseException as error:  # whatever it is, it is the caller's
            outcome.append((False, error))
        done.set()

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    end_s = time.monotonic() + seconds
    try:
        while not done.wait(POLL_S):
            if not alive():
                raise InterruptedError(f"{name}: the process is ending")
            if time.monotonic() > end_s:
                raise HangError(f"{name}: did not return within {seconds:.0f} s")
    except BaseException:
        left_behind.add(thread)
        raise
    thread.join()
    succeeded, value = outcome[0]
    if not succeeded:
        raise value
    return value
