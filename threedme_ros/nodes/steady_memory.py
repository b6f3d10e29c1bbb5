"""Memory that goes back when a volume is done: settings of glibc for a process that takes large arrays all the time."""

from __future__ import annotations

import ctypes
import sys

MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of malloc.h
LARGE_BYTES = 1 << 20


def keep_memory_steady() -> None:
    """From now on arrays of a megabyte and more are mapped one by one, and unmapped when they are freed.

    Left alone, glibc raises this limit to 32 MB after the first large array: label volumes then come from its heaps,
    which fragment and grow. Nothing happens with another C library.
    """
    if sys.platform == "linux":
        try:
            ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, LARGE_BYTES)
        except AttributeError:
            return
