"""What a fault is: a name, what must happen, how it is injected, and what did happen."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from dataclasses import dataclass

from theatre import Afterwards, Theatre


class Scenario(ABC):
    """name: of the fault. expected: what must happen, besides what `Theatre.recovered` asks for after every fault.

    slow: takes 10 s and more even on an idle machine: left to `make faults`.
    afterwards: how far from well it may leave the node.
    """

    name: str
    expected: str
    slow = False
    afterwards = Afterwards.AS_BEFORE

    def possible(self) -> str:
        """Why it cannot be injected here; empty if it can."""
        return ""

    @abstractmethod
    def inject(self, theatre: Theatre, chance: random.Random) -> None:
        """Cause the fault, at a moment that ``chance`` draws."""

    @abstractmethod
    def verify(self, theatre: Theatre) -> str:
        """What did happen; AssertionError if it is not what must."""

    def clear(self, theatre: Theatre) -> None:  # noqa: B027 most have nothing to take back
        """Take back what would spoil the next one; called in any case."""


@dataclass(frozen=True)
class Record:
    """One fault that was injected. happened: in words; of a failed one, why. seconds: of wall clock."""

    scenario: str
    repetition: int
    seed: int
    expected: str
    happened: str
    passed: bool
    seconds: float
