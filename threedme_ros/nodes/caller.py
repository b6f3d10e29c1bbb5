"""A service client that never waits: one request at a time, and an answer that comes too late is not told."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Caller:
    """Safe from any thread."""

    def __init__(self, node, kind, name: str) -> None:
        self._client = node.create_client(kind, name)
        self._lock = threading.Lock()
        self._future = None

    @property
    def ready(self) -> bool:
        return self._client.service_is_ready()

    @property
    def busy(self) -> bool:
        with self._lock:
            return self._future is not None

    def call(self, request, answered: Callable[[object], None]) -> None:
        """``answered(response)`` from the executor, with None if the call failed; never if it is given up before."""
        future = self._client.call_async(request)
        with self._lock:
            previous, self._future = self._future, future
        self._drop(previous)
        future.add_done_callback(lambda done: self._done(done, answered))

    def give_up(self) -> None:
        with self._lock:
            previous, self._future = self._future, None
        self._drop(previous)

    def _drop(self, future) -> None:
        if future is not None:
            self._client.remove_pending_request(future)

    def _done(self, future, answered: Callable[[object], None]) -> None:
        with self._lock:
            if future is not self._future:
                return
            self._future = None
        answered(None if future.cancelled() or future.exception() else future.result())
