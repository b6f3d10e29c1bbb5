"""Random geometry for training windows, on CPU tensors, all drawn from one `torch.Generator`.

Arrays are (D, H, W) = (S, A, R). Geometry is one resampling of image and labels together. Left and right are never
exchanged: every map here has a positive determinant and no axis is flipped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .axis_filters import interpolated
from .deformation import flow, random_velocity
from .draws import uniform

PADDING = -1.0
"""What a voxel outside the scan holds, after normalisation to [-1, 1]."""


@dataclass(frozen=True)
class WarpConfig:
    """How far a window may be bent: degrees (the whole angle), a factor, and voxels (of the model grid).

    elastic_voxels: standard deviation of the bending between control points elastic_spacing_voxels apart; each further
    one of elastic_octaves has half of both. share: of samples that are warped; the others are cut out as they are.
    """

    rotation_deg: float = 20.0
    scale: tuple[float, float] = (0.8, 1.25)
    elastic_voxels: float = 2.0
    elastic_spacing_voxels: float = 18.0
    elastic_octaves: int = 1
    share: float = 0.9

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", tuple(float(s) for s in self.scale))
        if not 0 <= self.rotation_deg <= 90:
            raise ValueError(f"rotation_deg {self.rotation_deg}: expected an angle from 0 to 90")
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1] < math.inf:
            raise ValueError(f"scale {self.scale}: expected (smallest, largest), both positive")
        if not (0 <= self.elastic_voxels < math.inf and 0 < self.elastic_spacing_voxels < math.inf):
            raise ValueError(
                f"elastic_voxels {self.elastic_voxels}, elastic_spacing_voxels {self.elastic_spacing_voxels}: "
                "expected 0 or more, and a positive number"
            )
        if type(self.elastic_octaves) is not int or not 1 <= self.elastic_octaves <= 5:
            raise ValueError(f"elastic_octaves {self.elastic_octaves!r}: expected an integer from 1 to 5")
        if not 0 <= self.share <= 1:
            raise ValueError(f"share {self.share}: expected one from 0 to 1")


def random_linear_map(config: WarpConfig, generator: torch.Generator, tilt: float = math.inf) -> Tensor:
    """(3, 3), output voxel offset -> source voxel offset in (D, H, W): a rotation times scales, determinant above 0.

    tilt: the most, in radians, that the axial plane may lean (a thin scan would leave its window).
    """
    axis = torch.randn(3, generator=generator)
    turn = axis / axis.norm() * math.radians(uniform(generator, 0, config.rotation_deg))
    lean = turn[1:].norm().item()
    turn[1:] *= min(1.0, tilt / max(lean, 1e-6))
    d, h, w = turn.tolist()
    rotation = torch.linalg.matrix_exp(torch.tensor([[0.0, -w, h], [w, 0.0, -d], [-h, d, 0.0]]))
    log_low, log_high = (math.log(s) for s in config.scale)
    scales = [math.exp(uniform(generator, log_low, log_high)) for _ in range(3)]
    return rotation @ torch.diag(torch.tensor(scales))


def sampling_grid(
    source_shape: tuple[int, int, int],
    shape: tuple[int, int, int],
    centre: tuple[float, float, float],
    linear_map: Tensor,
    displacement: Tensor | None = None,
) -> Tensor:
    """The `F.grid_sample` grid (1, D, H, W, 3), align_corners=True, for a window of ``shape`` around ``centre``.

    centre: source voxel coordinates (D, H, W) of the window's centre. displacement: (3, d, h, w) source voxels, a
    coarse field in (D, H, W) components that is interpolated to the window.
    """
    size = torch.tensor(source_shape, dtype=torch.float32)
    to_unit = 2.0 / (size - 1).clamp(min=1)  # voxel index -> [-1, 1]; an axis of one voxel has only index 0
    half = (torch.tensor(shape, dtype=torch.float32) - 1) / 2
    theta = torch.empty(3, 4)
    theta[:, :3] = to_unit[:, None] * linear_map * half[None, :]
    theta[:, 3] = torch.tensor(centre) * to_unit - 1
    theta = theta.flip(0)  # rows (D, H, W) -> (x=W, y=H, z=D)
    theta = torch.cat([theta[:, :3].flip(1), theta[:, 3:]], 1)  # columns likewise
    grid = F.affine_grid(theta[None], (1, 1, *shape), align_corners=True)
    if displacement is not None:
        field = (displacement * to_unit[:, None, None, None]).flip(0)[None]
        grid += interpolated(field, tuple(shape)).permute(0, 2, 3, 4, 1)  # (1, 3, D, H, W) -> (1, D, H, W, 3)
    return grid


def random_displacement(shape: tuple[int, int, int], config: WarpConfig, generator: torch.Generator) -> Tensor:
    """A smooth displacement (3, d, h, w) in voxels, on a coarse lattice over ``shape``, that does not fold."""
    return flow(
        random_velocity(shape, config.elastic_voxels, config.elastic_spacing_voxels, config.elastic_octaves, generator),
        shape,
    )


def warp(image: Tensor, labels: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """``image`` (D, H, W) float trilinear and ``labels`` (D, H, W) uint8 nearest, at ``grid``.

    Outside the scan the labels are 0, and the image repeats its border (blending with a padding would darken the
    outermost voxels): callers blank it there, by labels that are not 0 inside.
    """
    moved = F.grid_sample(image[None, None], grid, padding_mode="border", align_corners=True)[0, 0]
    nearest = F.grid_sample(labels[None, None].float(), grid, mode="nearest", align_corners=True)[0, 0]
    return moved, nearest.to(torch.uint8)
