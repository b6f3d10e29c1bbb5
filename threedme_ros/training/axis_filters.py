"""Linear filters along one axis of a (D, H, W) tensor, as small matrices: blur, thick slices, interpolation.

A filter of an axis of n voxels is a matrix (m, n) float32 whose rows sum to 1, so filters of one axis multiply into
one, and applying it is one matrix product: faster than a convolution at these sizes, with borders as one likes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def apply_along(image: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """``image`` (D, H, W) with ``matrix`` (m, n) applied along ``axis`` of n voxels; that axis then has m."""
    d, h, w = image.shape
    if axis == 0:
        return (matrix @ image.reshape(d, h * w)).view(-1, h, w)
    return matrix @ image if axis == 1 else image @ matrix.T


def gaussian(n: int, sigma: float) -> Tensor:
    """(n, n): blur by ``sigma`` voxels, cut at 2.5 sigma, border voxels repeated."""
    radius = max(1, math.ceil(2.5 * sigma))
    weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / max(sigma, 1e-3)) ** 2)
    return _banded(n, weights / weights.sum())


def slices(n: int, spacing: float, thickness: float = 1.0) -> Tensor:
    """(m, n) with m = round(n / spacing): the scan as m slices, each the mean of the voxels it covers, in proportion.

    thickness: of a slice, in distances between slices; below 1 there are gaps, above 1 the slices overlap.
    """
    count = max(1, round(n / spacing))
    width = n / count
    middle = (torch.arange(count) + 0.5)[:, None] * width
    voxel = torch.arange(n, dtype=torch.float32)
    half = thickness * width / 2
    overlap = torch.minimum(middle + half, voxel + 1) - torch.maximum(middle - half, voxel)
    overlap.clamp_(min=0)
    return overlap / overlap.sum(1, keepdim=True)


def between_slices(n: int, count: int, nearest: bool = False) -> Tensor:
    """(n, count): back from ``count`` slices to n voxels over the same extent, linearly or each from its nearest."""
    position = ((torch.arange(n) + 0.5) * (count / n) - 0.5).clamp(0, count - 1)
    return _interpolation(position.round() if nearest else position, count)


def from_control_points(n: int, count: int) -> Tensor:
    """(n, count): linear between ``count`` >= 2 control points, the first and the last on the outer voxels."""
    return _interpolation(torch.linspace(0, count - 1, n), count)


def interpolated(control: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Control points (..., d, h, w) trilinearly brought to (..., D, H, W), corners on corners."""
    *leading, d, h, w = control.shape
    depth, height, width = shape
    x = control.reshape(-1, d, h * w)
    x = (from_control_points(depth, d) @ x).view(-1, h, w)
    x = from_control_points(height, h) @ x
    return (x @ from_control_points(width, w).T).view(*leading, depth, height, width)


def _interpolation(position: Tensor, count: int) -> Tensor:
    lower = position.floor().clamp(max=max(count - 2, 0)).long()
    share = position - lower
    matrix = torch.zeros(len(position), count)
    matrix.scatter_add_(1, lower[:, None], 1 - share[:, None])
    return matrix.scatter_add_(1, (lower + 1).clamp(max=count - 1)[:, None], share[:, None])


def _banded(n: int, weights: Tensor) -> Tensor:
    radius = len(weights) // 2
    column = (torch.arange(n)[:, None] + torch.arange(-radius, radius + 1)).clamp(0, n - 1)
    return torch.zeros(n, n).scatter_add_(1, column, weights.expand(n, -1))
