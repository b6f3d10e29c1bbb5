"""Injects one fault and says what happened."""

from __future__ import annotations

import random
import time
import traceback

from scenario import Record, Scenario
from theatre import Theatre, killed


def inject(kind: type[Scenario], theatre: Theatre, seed: int, repetition: int = 1) -> Record:
    """One fault, what must happen after it, and what must happen after every one."""
    scenario, began = kind(), time.monotonic()
    happened, passed = "", False
    try:
        theatre.begin()
        try:
            scenario.inject(theatre, random.Random(seed))
            happened = scenario.verify(theatre)
        finally:
            scenario.clear(theatre)
        happened = f"{happened}; {theatre.recovered(kind.afterwards)}"
        passed = True
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        happened = f"{happened}{'; ' if happened else ''}{type(error).__name__} at {where.name}: {error}"[:4000]
        if theatre.node is not None:  # the next fault begins with a node that knows nothing of this one
            killed(theatre.node.process)
    seconds = round(time.monotonic() - began, 2)
    return Record(scenario.name, repetition, seed, scenario.expected, happened, passed, seconds)
