"""Random geometry and acquisition for training windows, all on CPU tensors, all drawn from one `torch.Generator`.

Arrays are (D, H, W) = (S, A, R). Geometry is one resampling of image and labels together. Left and right are never
exchanged: every map here has a positive determinant and no axis is flipped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

PADDING = -1.0
"""What a voxel outside the scan holds, after normalisation to [-1, 1]."""


@dataclass(frozen=True)
class WarpConfig:
    """How far a window may be bent: degrees, a factor, and voxels (of the model grid)."""

    rotation_deg: float = 20.0
    scale: tuple[float, float] = (0.8, 1.25)
    elastic_voxels: float = 2.0
    elastic_spacing_voxels: float = 18.0
    share: float = 0.9
    """Share of samples that are warped; the others are cut out as they are."""


def uniform(generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> float:
    return low + (high - low) * torch.rand((), generator=generator).item()


def chance(generator: torch.Generator, probability: float) -> bool:
    return uniform(generator) < probability


def integer(generator: torch.Generator, low: int, high: int) -> int:
    """From ``low`` to ``high``, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def random_linear_map(config: WarpConfig, generator: torch.Generator) -> Tensor:
    """(3, 3), output voxel offset -> source voxel offset in (D, H, W): rotations times scales, determinant above 0."""
    matrix = torch.eye(3)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        angle = math.radians(uniform(generator, -config.rotation_deg, config.rotation_deg))
        turn = torch.eye(3)
        turn[a, a] = turn[b, b] = math.cos(angle)
        turn[a, b], turn[b, a] = -math.sin(angle), math.sin(angle)
        matrix = matrix @ turn
    log_low, log_high = (math.log(s) for s in config.scale)
    scales = [math.exp(uniform(generator, log_low, log_high)) for _ in range(3)]
    return matrix @ torch.diag(torch.tensor(scales))


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
        field = F.interpolate(field, size=shape, mode="trilinear", align_corners=True)
        grid += field.permute(0, 2, 3, 4, 1)  # (1, 3, D, H, W) -> (1, D, H, W, 3)
    return grid


def random_displacement(shape: tuple[int, int, int], config: WarpConfig, generator: torch.Generator) -> Tensor:
    """A coarse smooth field (3, d, h, w) in voxels; amplitude far below its control spacing, so it does not fold."""
    coarse = [max(2, round(n / config.elastic_spacing_voxels) + 1) for n in shape]
    return torch.randn(3, *coarse, generator=generator) * uniform(generator, 0.0, config.elastic_voxels)


def warp(image: Tensor, labels: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """``image`` (D, H, W) float trilinear and ``labels`` (D, H, W) uint8 nearest, at ``grid``; outside: -1 and 0."""
    moved = F.grid_sample(image[None, None] - PADDING, grid, mode="bilinear", align_corners=True)[0, 0] + PADDING
    nearest = F.grid_sample(labels[None, None].float(), grid, mode="nearest", align_corners=True)[0, 0]
    return moved, nearest.to(torch.uint8)


def smooth(image: Tensor, sigma: float, axis: int) -> Tensor:
    """Gaussian of ``sigma`` voxels along ``axis`` of a 3-D tensor, border voxels repeated."""
    radius = max(1, math.ceil(2.5 * sigma))
    weights = [math.exp(-0.5 * (k / max(sigma, 1e-3)) ** 2) for k in range(radius + 1)]
    total = weights[0] + 2 * sum(weights[1:])
    n = image.shape[axis]
    first, last = image.narrow(axis, 0, 1), image.narrow(axis, n - 1, 1)
    padded = torch.cat([first] * radius + [image] + [last] * radius, axis)
    result = padded.narrow(axis, radius, n) * (weights[0] / total)
    for k in range(1, radius + 1):
        result.add_(padded.narrow(axis, radius - k, n), alpha=weights[k] / total)
        result.add_(padded.narrow(axis, radius + k, n), alpha=weights[k] / total)
    return result


def thick_slices(image: Tensor, factor: float, axis: int, nearest: bool) -> Tensor:
    """Averaged into slices ``factor`` voxels thick along ``axis``, then brought back to the same grid."""
    n = image.shape[axis]
    thin = max(1, round(n / factor))
    if thin == n:
        return image
    size = list(image.shape)
    size[axis] = thin
    kernel = (smooth(image, 0.42 * factor, axis))[None, None]
    coarse = F.interpolate(kernel, size=size, mode="trilinear", align_corners=False)
    mode = {"mode": "nearest-exact"} if nearest else {"mode": "trilinear", "align_corners": False}
    return F.interpolate(coarse, size=image.shape, **mode)[0, 0]


def random_field(shape: tuple[int, int, int], control: int, generator: torch.Generator) -> Tensor:
    """Smooth noise (D, H, W) of unit variance at its control points, ``control`` of them along each axis."""
    coarse = torch.randn(1, 1, control, control, control, generator=generator)
    return F.interpolate(coarse, size=shape, mode="trilinear", align_corners=True)[0, 0]


def random_field_of_view(shape: tuple[int, int, int], generator: torch.Generator, probability: float) -> Tensor | None:
    """A mask (D, H, W) bool of what the scanner sees, or None for everything.

    A slab of 6 voxels or more along D, a box of at least half the window along H and W, or the cylinder of a
    cone-beam scan.
    """
    if not chance(generator, probability):
        return None
    seen = torch.zeros(shape, dtype=torch.bool)
    ranges = []
    for axis, n in enumerate(shape):
        least = min(n, 6) if axis == 0 else (n + 1) // 2
        keep = integer(generator, least, n) if chance(generator, 0.5) else n
        start = integer(generator, 0, n - keep)
        ranges.append(slice(start, start + keep))
    seen[tuple(ranges)] = True
    if chance(generator, 0.25):
        h = torch.linspace(-1, 1, shape[1])[:, None]
        w = torch.linspace(-1, 1, shape[2])[None, :]
        seen &= (h**2 + w**2) < uniform(generator, 0.6, 1.2) ** 2
    return seen


def random_acquisition(image: Tensor, generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """Blur, slice thickness, contrast, brightness, gamma and noise on ``image`` (D, H, W) in [-1, 1]; clipped to it.

    strength scales how often and how far (1 for real images, about 1.5 for synthesised ones).
    """
    often = 0.3 * strength
    if chance(generator, often):
        sigma = uniform(generator, 0.3, 0.9)
        for axis in range(3):
            image = smooth(image, sigma, axis)
    if chance(generator, often):
        axis = 0 if chance(generator, 0.7) else integer(generator, 1, 2)
        image = thick_slices(image, uniform(generator, 1.3, 1.0 + 1.6 * strength), axis, chance(generator, 0.3))
    if chance(generator, often):
        field = random_field(image.shape, integer(generator, 2, 4), generator)
        gain = field.mul_(uniform(generator, 0.0, 0.25 * strength)).exp_()
        image = (image + 1).mul_(gain).sub_(1)
    if chance(generator, 0.6):
        image = image * (1 + uniform(generator, -0.25, 0.25) * strength) + uniform(generator, -0.15, 0.15) * strength
    image = image.clamp(-1, 1)
    if chance(generator, often):
        gamma = math.exp(uniform(generator, -0.4, 0.4) * strength)
        image = ((image + 1) / 2).pow_(gamma).mul_(2).sub_(1)
    if chance(generator, 0.5):
        noise = torch.randn(image.shape, generator=generator)
        if chance(generator, 0.3):  # correlated, as after reconstruction with a soft kernel
            noise = smooth(smooth(noise, 0.6, 1), 0.6, 2).mul_(2)
        image = image.add(noise, alpha=uniform(generator, 0.0, 0.12) * strength)
    return image.clamp_(-1, 1)
