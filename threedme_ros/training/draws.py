"""Numbers drawn from a `torch.Generator`, the only source of chance in a training window."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def uniform(generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> float:
    return low + (high - low) * torch.rand((), generator=generator).item()


def chance(generator: torch.Generator, probability: float) -> bool:
    return uniform(generator) < probability


def integer(generator: torch.Generator, low: int, high: int) -> int:
    """From ``low`` to ``high``, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def pick(weights: Sequence[float], generator: torch.Generator) -> int:
    """An index, in proportion to its weight."""
    return int(torch.multinomial(torch.tensor(weights, dtype=torch.float32), 1, generator=generator))
