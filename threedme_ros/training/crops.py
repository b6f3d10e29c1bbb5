"""The endless stream of masked windows for pretraining: sample ``i`` is a pure function of (seed, i).

So the order of the data does not depend on how many processes draw it, in which of them, or on where a run was stopped.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from threedme_ros.model.config import ModelConfig

from .augment import (
    PADDING,
    WarpConfig,
    random_displacement,
    random_linear_map,
    sampling_grid,
    warp,
)
from .draws import chance, integer, pick, uniform
from .errors import TrainingError
from .masking import Masking, MaskingSchedule, Triple, draw_mask
from .volume_cache import CachedVolume

BODY_ABOVE = PADDING + 0.05
BODY_TRIES = 8
WINDOW_STREAM, STEP_STREAM = 0, 1


class Crop(NamedTuple):
    """One sample, or a batch with a leading B."""

    image: Tensor
    """(1, D, H, W) float32 in [-1, 1]."""
    inside: Tensor
    """(1, D, H, W) bool: within the scan, not padding."""
    mask: Tensor
    """(d, h, w) bool on the token grid: hidden."""


@dataclass(frozen=True)
class CropConfig:
    """Shapes (D, H, W) in voxels and how often each is drawn, and how windows are bent."""

    shapes: tuple[tuple[int, int, int], ...] = ((96, 96, 96), (48, 128, 128), (16, 176, 176))
    weights: tuple[float, ...] = (0.6, 0.25, 0.15)
    warp: WarpConfig = field(default_factory=lambda: WarpConfig(share=0.5))

    def __post_init__(self) -> None:
        object.__setattr__(self, "shapes", tuple(tuple(int(n) for n in s) for s in self.shapes))
        object.__setattr__(self, "weights", tuple(float(w) for w in self.weights))
        if not self.shapes or len(self.shapes) != len(self.weights) or min(self.weights) <= 0:
            raise TrainingError(f"weights {self.weights} for shapes {self.shapes}: expected a positive one a shape")
        for shape in self.shapes:
            if len(shape) != 3 or any(n < 1 or n % ModelConfig.STRIDE for n in shape):
                raise TrainingError(f"window shape {shape}: expected three multiples of {ModelConfig.STRIDE}")


def generator_for(*key: int) -> torch.Generator:
    """Independent for every ``key``. A torch generator keeps 32 bits of its seed, so the key is hashed into them."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))


class CropStream(Dataset):
    """Samples 0, 1, 2 ... of ``steps`` steps of ``step_samples`` each; all of a step have one window shape.

    Masking follows the step's progress, 0 at the first and 1 at the last.
    """

    def __init__(
        self,
        volumes: Sequence[CachedVolume],
        config: CropConfig,
        schedule: MaskingSchedule,
        token_size: int,
        token_mm: Triple,
        *,
        seed: int,
        steps: int,
        step_samples: int,
    ) -> None:
        self.volumes, self.config, self.schedule = volumes, config, schedule
        self.token_size, self.token_mm = token_size, token_mm
        self.seed, self.steps, self.step_samples = seed, steps, step_samples

    def __len__(self) -> int:
        return self.steps * self.step_samples

    def __getitem__(self, index: int) -> Crop:
        shape, masking = self.step_plan(index // self.step_samples)
        generator = generator_for(self.seed, WINDOW_STREAM, index)
        volume = self._volume(shape, generator)
        image, inside = draw_crop(volume.open(), shape, self.config.warp, generator)
        mask = draw_mask(tuple(n // self.token_size for n in shape), masking, generator)
        return Crop(image[None], inside[None], mask)

    def step_plan(self, step: int) -> tuple[tuple[int, int, int], Masking]:
        """The window shape (D, H, W) and the masking of all samples of a step."""
        generator = generator_for(self.seed, STEP_STREAM, step)
        shape = self.config.shapes[pick(self.config.weights, generator)]
        return shape, self.schedule.at(step / max(1, self.steps - 1), self.token_mm, uniform(generator))

    def cases(self, step: int) -> list[str]:
        """The names of the scans that a step's samples are cut from."""
        indices = range(step * self.step_samples, (step + 1) * self.step_samples)
        shape, _ = self.step_plan(step)
        return sorted({self._volume(shape, generator_for(self.seed, WINDOW_STREAM, i)).name for i in indices})

    def _volume(self, shape: tuple[int, int, int], generator: torch.Generator) -> CachedVolume:
        """Any that is at least half as deep as the window; a thin scan would be nearly all padding in a thick one."""
        deep = [v for v in self.volumes if 2 * v.shape[0] >= shape[0]] or self.volumes
        return deep[integer(generator, 0, len(deep) - 1)]


class RankBatches(Sampler[list[int]]):
    """The sample numbers of each micro-batch that one rank draws, from ``first_step`` on.

    A step's samples are dealt out in order: micro-step 0 of rank 0, of rank 1, ..., micro-step 1 of rank 0, ... So any
    split of a step into ranks, micro-steps and batches sees the same samples.
    """

    def __init__(self, first_step: int, steps: int, batch_size: int, accumulate: int, rank: int, ranks: int) -> None:
        self.first_step, self.steps, self.batch_size, self.accumulate = first_step, steps, batch_size, accumulate
        self.rank, self.ranks = rank, ranks

    def __len__(self) -> int:
        return (self.steps - self.first_step) * self.accumulate

    def __iter__(self) -> Iterator[list[int]]:
        for micro in range(self.first_step * self.accumulate, self.steps * self.accumulate):
            first = (micro * self.ranks + self.rank) * self.batch_size
            yield list(range(first, first + self.batch_size))


def draw_crop(
    volume: np.ndarray, shape: tuple[int, int, int], config: WarpConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A window of ``shape`` (D, H, W) around a voxel of the body: image float32 in [-1, 1], and what is scan, bool.

    volume: (D, H, W) float16; only what the window needs of it is read. A share of windows is turned, scaled and bent.
    """
    centre = _centre(volume, shape, generator)
    bent = chance(generator, config.share)
    linear_map = random_linear_map(config, generator) if bent else torch.eye(3)
    displacement = random_displacement(shape, config, generator) if bent else None
    reach = linear_map.abs() @ torch.tensor([n / 2 for n in shape])
    if displacement is not None:
        reach += displacement.abs().max() + 1
    ranges, low = [], []
    for c, r, n in zip(centre, reach.tolist(), volume.shape, strict=True):
        start = max(0, math.floor(c - r))
        ranges.append(slice(start, max(start + 1, min(n, math.ceil(c + r)))))
        low.append(start)
    part = torch.from_numpy(np.asarray(volume[tuple(ranges)], dtype=np.float32))
    if not bent:
        return _padded(part, [round(s - (c - n / 2)) for s, c, n in zip(low, centre, shape, strict=True)], shape)
    within = tuple(c - 0.5 - s for c, s in zip(centre, low, strict=True))  # faces -> voxel centres
    grid = sampling_grid(part.shape, shape, within, linear_map, displacement)
    image, inside = warp(part, torch.ones(part.shape, dtype=torch.uint8), grid)
    inside = inside.bool()
    return image.masked_fill_(~inside, PADDING), inside


def _centre(volume: np.ndarray, shape: tuple[int, int, int], generator: torch.Generator) -> tuple[float, float, float]:
    """A voxel that is not air, if a few tries find one; then the window stays in the scan, or the scan in it.

    In voxel faces: a window of n voxels goes from centre - n / 2 to centre + n / 2.
    """
    for _ in range(BODY_TRIES):
        voxel = [integer(generator, 0, n - 1) for n in volume.shape]
        if volume[tuple(voxel)] > BODY_ABOVE:
            break
    centre = []
    for v, n, window in zip(voxel, volume.shape, shape, strict=True):
        middle, slack = n / 2, abs(n - window) / 2
        v = min(max(v, middle - slack), middle + slack) if window < n else middle + uniform(generator, -slack, slack)
        centre.append(round(v - window / 2) + window / 2)  # whole voxels: an unbent window is cut out exactly
    return tuple(centre)


def _padded(part: Tensor, at: list[int], shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """``part`` placed in a window of ``shape`` at ``at``, and where it lies."""
    image = torch.full(shape, PADDING)
    inside = torch.zeros(shape, dtype=torch.bool)
    where = tuple(slice(a, a + n) for a, n in zip(at, part.shape, strict=True))
    image[where], inside[where] = part, True
    return image, inside
