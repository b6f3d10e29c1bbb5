"""What a task is trained on: sample ``i`` is a pure function of (seed, i), whatever draws it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from .acquisition import random_acquisition
from .augment import (
    PADDING,
    WarpConfig,
    random_displacement,
    random_linear_map,
    sampling_grid,
)
from .crops import generator_for
from .datasets.medmnist3d import LabelledImages
from .draws import chance, integer, uniform
from .task_cache import PreparedCase
from .task_table import ClassificationTask, Recipe, SegmentationTask

FOREGROUND = 2 / 3
"""Share of windows around a voxel of a random class; the others lie anywhere."""


class CaseWindows(Dataset):
    """Windows of labelled scans: image (C, D, H, W) float32 and labels (D, H, W) uint8. Never mirrored: sides count."""

    def __init__(self, cases: Sequence[PreparedCase], task: SegmentationTask) -> None:
        self.cases, self.shape, self.recipe = cases, task.window, task.recipe

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        generator = generator_for(self.recipe.seed, index)
        case = self.cases[self._case(generator)]
        image, labels, inside = draw_window(case, self.shape, self.recipe.warp, generator)
        return acquired(image, inside, self.recipe, generator), labels

    def name(self, index: int) -> str:
        return self.cases[self._case(generator_for(self.recipe.seed, index))].name

    def _case(self, generator: torch.Generator) -> int:
        return integer(generator, 0, len(self.cases) - 1)


class ImageSamples(Dataset):
    """Whole labelled images: (1, D, H, W) float32 of the task's shape, and the class. Never mirrored: sides count."""

    def __init__(self, images: LabelledImages, task: ClassificationTask) -> None:
        self.images, self.shape, self.recipe = images, task.input_shape, task.recipe

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        generator = generator_for(self.recipe.seed, index)
        number = self._number(generator)
        image = to_input(self.images.images[number], self.shape)
        inside = torch.ones(self.shape, dtype=torch.bool)
        if chance(generator, self.recipe.warp.share):
            middle = tuple((n - 1) / 2 for n in self.shape)
            grid = _bent_grid(self.shape, self.shape, middle, self.recipe.warp, generator)
            image = F.grid_sample(image[None] - PADDING, grid, align_corners=True)[0] + PADDING
        return acquired(image, inside, self.recipe, generator), torch.tensor(self.images.labels[number])

    def name(self, index: int) -> str:
        return f"image {self._number(generator_for(self.recipe.seed, index))}"

    def _number(self, generator: torch.Generator) -> int:
        return integer(generator, 0, len(self.images) - 1)


def to_input(image: np.ndarray, shape: tuple[int, int, int]) -> Tensor:
    """(D, H, W) uint8 -> (1, D, H, W) float32 of ``shape``, 0..255 mapped to -1..1, resized trilinearly."""
    x = torch.from_numpy(np.ascontiguousarray(image)).float()[None, None] / 127.5 - 1
    if tuple(image.shape) != tuple(shape):
        x = F.interpolate(x, size=tuple(shape), mode="trilinear", align_corners=False)
    return x[0]


def acquired(image: Tensor, inside: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """``image`` (C, D, H, W) as another scan would show it, each channel by itself, now and then; outside stays -1."""
    if not chance(generator, recipe.acquisition):
        return image
    channels = [random_acquisition(channel, generator) for channel in image]
    return torch.stack(channels).masked_fill_(~inside, PADDING)


def draw_window(
    case: PreparedCase, shape: tuple[int, int, int], config: WarpConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """image (C, D, H, W) float32, labels (D, H, W) uint8, inside (D, H, W) bool; only what is needed is read."""
    centre = _centre(case, shape, generator)
    bent = chance(generator, config.share)
    linear_map = random_linear_map(config, generator) if bent else torch.eye(3)
    displacement = random_displacement(shape, config, generator) if bent and config.elastic_voxels > 0 else None
    reach = linear_map.abs() @ torch.tensor([n / 2 for n in shape]) + 1
    if displacement is not None:
        reach += displacement.abs().max()
    ranges = []
    for c, r, n in zip(centre, reach.tolist(), case.shape, strict=True):
        first = min(max(0, int(c - r)), n - 1)
        ranges.append(slice(first, min(n, max(first + 1, int(c + r) + 2))))
    image, labels = case.window(ranges)
    within = tuple(c - r.start for c, r in zip(centre, ranges, strict=True))
    grid = sampling_grid(labels.shape, shape, within, linear_map, displacement)
    image = F.grid_sample(image[None] - PADDING, grid, align_corners=True)[0] + PADDING
    # labels + 1, so that 0 is what lies outside the scan
    nearest = F.grid_sample(labels[None, None].float() + 1, grid, mode="nearest", align_corners=True)[0, 0]
    return image, (nearest - 1).clamp_(min=0).to(torch.uint8), nearest > 0


def _bent_grid(
    source: tuple[int, int, int],
    shape: tuple[int, int, int],
    centre: tuple[float, float, float],
    config: WarpConfig,
    generator: torch.Generator,
) -> Tensor:
    displacement = random_displacement(shape, config, generator) if config.elastic_voxels > 0 else None
    return sampling_grid(source, shape, centre, random_linear_map(config, generator), displacement)


def _centre(case: PreparedCase, shape: tuple[int, int, int], generator: torch.Generator) -> tuple[float, float, float]:
    """In voxels: near a voxel of a random class, or anywhere; a window that fits into the scan stays in it."""
    classes = list(case.places)
    if classes and chance(generator, FOREGROUND):
        where = case.places[classes[integer(generator, 0, len(classes) - 1)]]
        voxel = where[integer(generator, 0, len(where) - 1)].tolist()
    else:
        voxel = [integer(generator, 0, n - 1) for n in case.shape]
    centre = []
    for v, n, window in zip(voxel, case.shape, shape, strict=True):
        middle, slack = (n - 1) / 2, abs(n - window) / 2
        if window < n:
            v += uniform(generator, -0.3, 0.3) * window
            v = min(max(v, middle - slack), middle + slack)
        else:
            v = middle + uniform(generator, -slack, slack)
        # on the grid of voxels, so that an unbent window is cut out exactly
        centre.append(round(v - (window - 1) / 2) + (window - 1) / 2)
    return tuple(centre)
