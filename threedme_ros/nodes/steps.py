"""Steps of an end that must all be taken."""

from __future__ import annotations

from collections.abc import Callable


def run_all(first: Callable[[], object], *others: Callable[[], object]) -> None:
    """Every step in order, whatever those before it raise; the last error is raised, the earlier ones its context."""
    try:
        first()
    finally:
        if others:
            run_all(*others)
