"""Where in a case a window lies and how it is bent: everything that is drawn before a voxel is touched.

Arrays are (D, H, W) = (S, A, R); positions are voxels of the case.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .augment import random_linear_map
from .case import TrainingCase
from .deformation import OrganChange, bent_positions, position_grid, random_velocity
from .draws import chance, integer, pick, uniform
from .window_config import WindowConfig

THIN_VOXELS = 40
"""A scan of fewer slices than this is bent and leant little out of its plane: it stays a slab along the axes."""
LEANING_VOXELS = 3.0


def draw_shape(case: TrainingCase, config: WindowConfig, generator: torch.Generator) -> tuple[int, int, int]:
    """A window shape that is not mostly empty: at most twice as deep as the scan, or as flat as there is."""
    flattest = min(shape[0] for shape in config.shapes)
    limit = max(flattest, 2 * case.image.shape[0])
    fitting = [i for i, shape in enumerate(config.shapes) if shape[0] <= limit]
    return config.shapes[fitting[pick([config.weights[i] for i in fitting], generator)]]


def draw_centre(
    case: TrainingCase, shape: tuple[int, int, int], generator: torch.Generator
) -> tuple[float, float, float]:
    """The window's centre in voxels of the case, class-balanced: near a random voxel of a random class.

    On an axis where the window holds the whole scan, the scan lies anywhere inside the window; elsewhere the window
    stays inside the scan.
    """
    classes = list(case.locations)
    where = case.locations[classes[integer(generator, 0, len(classes) - 1)]]
    voxel = where[integer(generator, 0, len(where) - 1)].tolist()
    centre = []
    for v, n, window in zip(voxel, case.image.shape, shape, strict=True):
        middle, slack = (n - 1) / 2, abs(n - window) / 2
        if window < n:
            v += uniform(generator, -0.3, 0.3) * window
            centre.append(min(max(v, middle - slack), middle + slack))
        else:
            centre.append(middle + uniform(generator, -slack, slack))
    return tuple(centre)


def draw_linear_map(
    case: TrainingCase, window: tuple[int, int, int], config: WindowConfig, generator: torch.Generator
) -> tuple[Tensor, bool]:
    """The window's rotation and scales (3, 3), and whether it is warped at all; a thin scan leans only a little."""
    if not chance(generator, config.warp.share):
        return torch.eye(3), False
    lean = 2 * LEANING_VOXELS / max(window[1:]) if _thin(case) else math.inf
    return random_linear_map(config.warp, generator, lean), True


def _thin(case: TrainingCase) -> bool:
    return case.image.shape[0] <= THIN_VOXELS


def draw_grid(
    case: TrainingCase,
    shape: tuple[int, int, int],
    linear_map: Tensor,
    warped: bool,
    config: WindowConfig,
    generator: torch.Generator,
) -> Tensor:
    """Where every voxel of a box ``shape`` (D, H, W) is sampled in the case."""
    centre = draw_centre(case, shape, generator)
    velocity = None
    if warped and config.warp.elastic_voxels > 0:
        bend = config.warp
        velocity = random_velocity(
            shape, bend.elastic_voxels, bend.elastic_spacing_voxels, bend.elastic_octaves, generator
        )
        velocity[0] *= min(1.0, case.image.shape[0] / THIN_VOXELS)  # a thin scan would be bent out of its window
    organs = draw_organs(case, config, generator) if chance(generator, config.organs) else []
    positions = bent_positions(shape, centre, linear_map, velocity, organs)
    return position_grid(positions, shape, tuple(case.image.shape))


def draw_organs(case: TrainingCase, config: WindowConfig, generator: torch.Generator) -> list[OrganChange]:
    """One to three classes of the case, each to grow or shrink and to shift; its ellipsoid is that of its voxels."""
    changes = []
    low, high = (math.log(s) for s in config.organ_scale)
    classes = list(case.organs)
    for _ in range(integer(generator, 1, 3)):
        centre, half_extent = case.organs[classes[integer(generator, 0, len(classes) - 1)]]
        shift = (2 * torch.rand(3, generator=generator) - 1) * config.organ_shift_voxels
        changes.append(OrganChange(centre, half_extent, math.exp(uniform(generator, low, high)), shift))
    return changes
