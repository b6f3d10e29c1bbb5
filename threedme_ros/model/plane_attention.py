"""Multi-level deformable attention over the axial, coronal and sagittal planes."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from threedme_ros.model.layers import VoxelNorm, axis_mean, pointwise

PLANES = (0, 1, 2)
"""The axis of (D, H, W) normal to the axial, coronal and sagittal plane."""


def slice_batch(x: Tensor, plane: int, count: int) -> Tensor:
    """The slices of one plane as a batch: (B, C, D, H, W) -> (B, count, C, R, S).

    ``count`` is a multiple of the slices along the normal axis, which are repeated, so that slice n of every level lies
    in the plane of the query's slice n. R, S are the two in-plane axes in D, H, W order.
    """
    x = x.movedim(plane + 2, 1)
    b, n, c, r, s = x.shape
    if n < count:
        return x[:, :, None].expand(b, n, count // n, c, r, s).reshape(b, count, c, r, s)
    return x


def reference_points(rows: int, columns: int, device: torch.device) -> Tensor:
    """Cell centres (1, rows, columns, 1, 2) as (x along columns, y along rows) in grid_sample's [-1, 1]."""
    y = (torch.arange(rows, device=device, dtype=torch.float32) * 2 + 1) / rows - 1
    x = (torch.arange(columns, device=device, dtype=torch.float32) * 2 + 1) / columns - 1
    grid = torch.stack([x[None, :].expand(rows, columns), y[:, None].expand(rows, columns)], dim=-1)
    return grid.reshape(1, rows, columns, 1, 2)


class PlaneAttention(nn.Module):
    """Deformable attention (Zhu et al. 2021, eq. 3), factorised over three planes.

    Each query voxel samples ``points`` learned offsets a head, on every level, in the three slices that pass through
    it; one softmax weighs all samples of a head. Sampling is 4-D grid_sample on batches of slices, in fp32.

    query (B, dim, D, H, W); levels: [(B, C_l, D_l, H_l, W_l)], sizes a power of two above or below the query's.
    Returns (B, dim, D, H, W).
    """

    def __init__(self, dim: int, level_channels: tuple[int, ...], heads: int, points: int) -> None:
        super().__init__()
        self.heads, self.points, self.levels = heads, points, len(level_channels)
        self.samples = len(PLANES) * self.levels * points
        self.value = nn.ModuleList(nn.Linear(c, dim) for c in level_channels)
        self.offset = nn.Linear(dim, heads * self.samples * 2)
        self.weight = nn.Linear(dim, heads * self.samples)
        self.out = nn.Linear(dim, dim)
        self._spread_offsets()

    def _spread_offsets(self) -> None:
        """Start as Deformable DETR does: head h looks along its own direction, point p at p + 1 cells.

        Reckoned on the CPU, also for a network without memory (`planned`), where each such step costs a long import.
        """
        angle = torch.arange(self.heads, device="cpu") * (2 * math.pi / self.heads)
        direction = torch.stack([angle.cos(), angle.sin()], dim=-1).reshape(self.heads, 1, 1, 2)
        reach = torch.arange(1, self.points + 1, device="cpu").reshape(1, 1, -1, 1)
        start = (direction * reach).expand(self.heads, len(PLANES) * self.levels, self.points, 2)
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.weight.weight)
        nn.init.zeros_(self.weight.bias)
        with torch.no_grad():
            self.offset.bias.copy_(start.reshape(-1))

    def forward(self, query: Tensor, levels: list[Tensor]) -> Tensor:
        b, _, *shape = query.shape
        values = [self._values(x, project, shape) for x, project in zip(levels, self.value, strict=True)]
        # channels: (heads, planes * levels * points [, 2]); sampling positions and weights stay fp32
        offsets = pointwise(query, self.offset).float().reshape(b, self.heads, -1, *shape)
        weights = pointwise(query, self.weight).float().reshape(b, self.heads, self.samples, *shape).softmax(dim=2)
        total = None
        for plane in PLANES:
            part = 0
            for level, value in enumerate(values):  # value: one a plane
                first = (plane * self.levels + level) * self.points
                part = part + self._sample(
                    value[plane],
                    offsets[:, :, 2 * first : 2 * (first + self.points)],
                    weights[:, :, first : first + self.points],
                    plane,
                    shape,
                )
            # (B, n, dim, R, S) -> (B, dim, D, H, W)
            part = part.movedim(1, plane + 2)
            total = part if total is None else total + part
        return pointwise(total.to(query.dtype), self.out)

    def _values(self, x: Tensor, project: nn.Linear, shape: list[int]) -> list[Tensor]:
        """What is sampled of one level in each plane, along whose normal it has at most the query's slices.

        Means over slices are taken before the projection, with which they commute: half the voxels of a fine level are
        then projected and brought into slices.
        """
        factors = [max(1, n // count) for n, count in zip(x.shape[2:], shape, strict=True)]
        if max(factors) == 1:
            return [pointwise(x, project).float()] * len(PLANES)
        return [pointwise(axis_mean(x, plane + 2, factors[plane]), project).float() for plane in PLANES]

    def _sample(self, value: Tensor, offsets: Tensor, weights: Tensor, plane: int, shape: list[int]) -> Tensor:
        """One level in one plane, weighted and summed over the points: (B, n, dim, r, s)."""
        count = shape[plane]
        r, s = (n for axis, n in enumerate(shape) if axis != plane)
        value = slice_batch(value, plane, count)
        b, _, dim, rows, columns = value.shape
        groups = b * count * self.heads
        # (B, heads, 2P, D, H, W) -> (B, n, heads, 2P, r, s) -> (G, r, s, P, 2)
        offsets = offsets.movedim(plane + 3, 1).reshape(groups, self.points, 2, r, s).permute(0, 3, 4, 1, 2)
        cells = torch.tensor([2.0 / columns, 2.0 / rows], device=value.device)
        grid = reference_points(r, s, value.device) + offsets * cells
        sampled = F.grid_sample(
            value.reshape(groups, dim // self.heads, rows, columns),
            grid.reshape(groups, r, s * self.points, 2),
            mode="bilinear",
            padding_mode="zeros",
            align_corners=False,
        ).reshape(groups, dim // self.heads, r, s, self.points)
        # (B, heads, P, D, H, W) -> (G, 1, r, s, P)
        weights = weights.movedim(plane + 3, 1).reshape(groups, 1, self.points, r, s).permute(0, 1, 3, 4, 2)
        return (sampled * weights).sum(dim=-1).reshape(b, count, dim, r, s)


class PlaneAttentionBlock(nn.Module):
    """x + plane attention, then x + MLP, both pre-norm."""

    def __init__(self, dim: int, level_channels: tuple[int, ...], heads: int, points: int) -> None:
        super().__init__()
        self.norm1 = VoxelNorm(dim)
        self.attention = PlaneAttention(dim, level_channels, heads, points)
        self.norm2 = VoxelNorm(dim)
        self.expand, self.contract = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)

    def forward(self, x: Tensor, levels: list[Tensor]) -> Tensor:
        x = x + self.attention(self.norm1(x), levels)
        return x + pointwise(F.gelu(pointwise(self.norm2(x), self.expand)), self.contract)
