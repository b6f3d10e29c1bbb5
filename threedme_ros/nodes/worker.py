"""One thread and a slot of one: callbacks never block, and the newest job wins."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from threedme_ros.nodes.watchdog import LeftBehind

Job = TypeVar("Job")


class LatestSlot(Generic[Job]):
    """Holds at most one waiting job; a newer one takes its place."""

    def __init__(self) -> None:
        self._ready = threading.Condition()
        self._jobs: list[Job] = []
        self._closed = False

    @property
    def waiting(self) -> int:
        return len(self._jobs)

    def put(self, job: Job) -> Job | None:
        """Never waits. Returns what will not run: the job that was still waiting, or ``job`` itself once closed."""
        with self._ready:
            if self._closed:
                return job
            replaced = self._jobs.pop() if self._jobs else None
            self._jobs.append(job)
            self._ready.notify()
            return replaced

    def offer(self, job: Job) -> None:
        """Like `put`, but a job that already waits keeps its place."""
        with self._ready:
            if not self._jobs and not self._closed:
                self._jobs.append(job)
                self._ready.notify()

    def take(self) -> Job | None:
        """Waits for a job; None once the slot is closed."""
        with self._ready:
            self._ready.wait_for(lambda: self._jobs or self._closed)
            return None if self._closed else self._jobs.pop()

    def close(self) -> Job | None:
        """Wakes `take` for good. Returns the job that was waiting and will not run."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()
            return self._jobs.pop() if self._jobs else None


class Worker(Generic[Job]):
    """Runs ``work(job)`` on its own thread for the newest job; ``work`` handles its own exceptions."""

    def __init__(self, work: Callable[[Job], None], name: str) -> None:
        self._slot: LatestSlot[Job] = LatestSlot()
        self._work = work
        # a daemon: an engine that never returns must not keep the process from ending
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    @property
    def waiting(self) -> int:
        """Jobs in the slot: 0 or 1."""
        return self._slot.waiting

    def submit(self, job: Job) -> Job | None:
        """Never waits. Returns the job that will not run because of this one (see `LatestSlot.put`)."""
        return self._slot.put(job)

    def offer(self, job: Job) -> None:
        """Run ``job`` unless another one is waiting."""
        self._slot.offer(job)

    def close(self) -> Job | None:
        """No job after the running one; returns the waiting job, which will not run. Never waits."""
        return self._slot.close()

    def joined(self, timeout_s: float) -> bool:
        """After `close`: wait for the running job; False if it is still busy."""
        self.thread.join(timeout_s)
        return not self.thread.is_alive()

    def stop(self, timeout_s: float, left_behind: LeftBehind) -> Job | None:
        """Let the running job end and join; returns the waiting job, which will not run.

        A thread that is still busy after ``timeout_s`` goes to ``left_behind``.
        """
        dropped = self.close()
        if not self.joined(timeout_s):
            left_behind.add(self.thread)
        return dropped

    def _run(self) -> None:
        while (job := self._slot.take()) is not None:
            self._work(job)
