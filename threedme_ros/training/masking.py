"""Progressive volumetric masking: how much of a window is hidden, in blocks of which size, and exactly where.

A mask lives on the ViT's token grid (d, h, w) = (S, A, R): one cell is a cube of ``token_size`` voxels, the smallest
thing that can be hidden from both branches at once. Blocks are boxes of whole tokens, longest across the slices, so
that a hidden structure cannot be copied from the slice next to it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

SCHEDULES = ("progressive", "fixed", "uniform")
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Masking:
    """What to hide in one window. ``block_tokens`` (d, h, w) and ``block_mm`` (S, A, R) are one size in two units."""

    ratio: float
    block_tokens: tuple[int, int, int]
    block_mm: Triple


@dataclass(frozen=True)
class MaskingSchedule:
    """Masking as a function of training progress in [0, 1].

    ratio and block_mm are (easiest, hardest); block_mm is along (S, A, R) in mm, rounded to whole tokens, at least one.
    A *hardness* in [0, 1] goes linearly from easiest to hardest, and ``kind`` says what hardness a step has:
    "progressive" its progress, "fixed" always ``fixed_at``, "uniform" a random draw, whatever the progress. So the
    three kinds differ in order only, not in what they show. Raises ValueError with the field and its value.
    """

    kind: str = "progressive"
    ratio: tuple[float, float] = (0.40, 0.85)
    block_mm: tuple[Triple, Triple] = ((0.0, 0.0, 0.0), (144.0, 96.0, 96.0))
    fixed_at: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "ratio", tuple(float(r) for r in self.ratio))
        object.__setattr__(self, "block_mm", tuple(tuple(float(b) for b in block) for block in self.block_mm))
        if self.kind not in SCHEDULES:
            raise ValueError(f"masking kind {self.kind!r}: expected one of {SCHEDULES}")
        if len(self.ratio) != 2 or not 0 < self.ratio[0] <= self.ratio[1] < 1:
            raise ValueError(f"masking ratio {self.ratio}: expected (low, high), 0 < low <= high < 1")
        if [len(block) for block in self.block_mm] != [3, 3]:
            raise ValueError(f"block_mm {self.block_mm}: expected two sizes of three numbers (S, A, R) in mm")
        if not all(0 <= a <= b < math.inf for a, b in zip(*self.block_mm, strict=True)):
            raise ValueError(f"block_mm {self.block_mm}: expected the second size at least the first, none negative")
        if not 0 <= self.fixed_at <= 1:
            raise ValueError(f"fixed_at {self.fixed_at}: expected a number from 0 to 1")

    def hardness(self, progress: float, draw: float) -> float:
        """Of a step at ``progress``; ``draw``, uniform in [0, 1), is used by "uniform" only."""
        if not 0 <= progress <= 1:
            raise ValueError(f"training progress {progress}: expected a number from 0 to 1")
        return {"progressive": progress, "fixed": self.fixed_at, "uniform": draw}[self.kind]

    def at_hardness(self, hardness: float, token_mm: Triple) -> Masking:
        """``token_mm``: the edges (S, A, R) of one token in mm, see `token_edges_mm`."""
        low, high = self.ratio
        blocks = [a + (b - a) * hardness for a, b in zip(*self.block_mm, strict=True)]
        tokens = tuple(max(1, round(mm / edge)) for mm, edge in zip(blocks, token_mm, strict=True))
        size_mm = tuple(n * edge for n, edge in zip(tokens, token_mm, strict=True))
        return Masking(low + (high - low) * hardness, tokens, size_mm)

    def at(self, progress: float, token_mm: Triple, draw: float = 0.5) -> Masking:
        return self.at_hardness(self.hardness(progress, draw), token_mm)


def token_edges_mm(token_size: int, spacing_mm: Triple) -> Triple:
    """Edges (S, A, R) in mm of a token of ``token_size``^3 voxels; ``spacing_mm`` is (R, A, S), as elsewhere."""
    return tuple(token_size * s for s in reversed(spacing_mm))


def masked_count(ratio: float, tokens: int) -> int:
    """How many of ``tokens`` are hidden: the nearest number to ``ratio``, at least one hidden and one visible."""
    if tokens < 2:
        raise ValueError(f"a window of {tokens} token: expected at least 2, one to hide and one to see")
    return min(max(round(ratio * tokens), 1), tokens - 1)


def draw_mask(shape: tuple[int, int, int], masking: Masking, generator: torch.Generator) -> Tensor:
    """A mask (d, h, w) bool on a token grid of ``shape``, True is hidden; the same for the same generator state.

    The grid is cut into disjoint blocks from a random corner, and blocks are hidden in random order until
    `masked_count` tokens are: exactly that many, in whole blocks (cut off at the window's faces) but for the last one,
    of which only as many tokens are hidden as are left to hide.
    """
    d, h, w = shape
    tokens = d * h * w
    index, blocks = torch.zeros(1, dtype=torch.int64), 1
    for n, size in zip(shape, masking.block_tokens, strict=True):
        corner = int(torch.randint(size, (), generator=generator))
        along = (torch.arange(n) + corner) // size
        # block numbers of the axes so far (..., 1) and of this axis (n) -> (..., n), the last axis fastest
        index = index[..., None] * (int(along[-1]) + 1) + along
        blocks *= int(along[-1]) + 1
    block = index.reshape(-1)
    rank = torch.randperm(blocks, generator=generator)[block]
    within = torch.arange(tokens)
    if torch.randint(2, (), generator=generator):
        within = within.flip(0)  # else the part of a block that is hidden would always be its lower end
    hidden = (rank * tokens + within).argsort()[: masked_count(masking.ratio, tokens)]
    mask = torch.zeros(tokens, dtype=torch.bool)
    mask[hidden] = True
    return mask.reshape(shape)
