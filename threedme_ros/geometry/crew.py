"""The threads of the geometry: they are there before a volume comes, and stay.

Where memory is out a thread that is started may never run, and CPython waits for it for ever, holding a lock that every
`ThreadPoolExecutor` of the process needs. So nothing is started while a volume is worked on.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from threedme_ros.geometry.lattice import THREADS

STEPS = 3
"""Clouds, meshes and margins at once."""
START_TIMEOUT_S = 60.0


@cache
def steps_crew() -> ThreadPoolExecutor:
    """Threads for the steps of one volume."""
    return _started(STEPS, "geometry")


@cache
def meshes_crew() -> ThreadPoolExecutor:
    """Threads for the structures of one step: others than the step's own, which waits for them."""
    return _started(THREADS, "meshes")


def muster() -> None:
    """Start them all, before they are needed."""
    steps_crew()
    meshes_crew()


def relieve() -> None:
    """Others take over at the next call: those there are hang, or did not survive a fork."""
    steps_crew.cache_clear()
    meshes_crew.cache_clear()


def _started(count: int, name: str) -> ThreadPoolExecutor:
    pool = ThreadPoolExecutor(count, thread_name_prefix=name)
    together = threading.Barrier(count + 1)
    for _ in range(count):
        pool.submit(together.wait, START_TIMEOUT_S)
    together.wait(START_TIMEOUT_S)
    return pool


os.register_at_fork(after_in_child=relieve)
