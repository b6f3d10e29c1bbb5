"""Anatomy that varies: smooth diffeomorphic bending, and organs that grow, shrink and shift. Nothing ever folds.

A map goes from the output's voxels to the source's. It is held on a coarse lattice of positions and is trilinear in
between, so `least_jacobian` bounds its determinant over the whole window, not only at the lattice points.

Bending: Arsigny et al., "A Log-Euclidean framework for statistics on diffeomorphisms", MICCAI 2006: the flow of a
random smooth velocity field over unit time, by scaling and squaring.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .axis_filters import interpolated
from .draws import uniform

LATTICE_VOXELS = 4.0
SQUARINGS = 5
EXACT, REACH = 1.2, 2.0
"""An organ's change is exact up to the first of these many times its size, and has faded out at the second."""
LEAST_JACOBIAN = 0.05
"""Of the smallest volume change that is let through, relative to the affine part's."""
TRIES = 5
EXTRUDED = 6.0
"""Voxels by which the border of a scan may be repeated outwards, where a map just misses it."""


@dataclass(frozen=True, eq=False)
class OrganChange:
    """An ellipsoid of the source becomes ``factor`` times as long in every direction and moves by ``shift``.

    centre, half_extent, shift: (3,) source voxels (D, H, W).
    """

    centre: Tensor
    half_extent: Tensor
    factor: float
    shift: Tensor

    def __call__(self, positions: Tensor, strength: float = 1.0) -> Tensor:
        """Source positions (3, d, h, w) of the unchanged organ -> of the changed one."""
        factor, column = self.factor**strength, (3, 1, 1, 1)
        inner, reach = EXACT * factor, REACH * max(factor, 1.0)
        offset = positions - (self.centre + strength * self.shift).view(column)
        radius = (offset / self.half_extent.view(column)).square().sum(0).sqrt_().clamp_(min=1e-6)
        # radius in the changed image -> in the source: 0..inner from 0..EXACT, then back to the identity at reach
        beyond = EXACT + (radius - inner) * ((reach - EXACT) / (reach - inner))
        gain = torch.where(radius < inner, 1 / factor, torch.where(radius < reach, beyond / radius, 1.0))
        moved = ((reach - radius) / (reach - inner)).clamp_(0, 1).mul_(strength)
        return positions + offset * (gain - 1) - self.shift.view(column) * moved


def lattice_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    return tuple(max(2, math.ceil((n - 1) / LATTICE_VOXELS) + 1) for n in shape)


def lattice_coordinates(shape: Sequence[int]) -> Tensor:
    """(3, d, h, w): the lattice points of a window of ``shape``, in voxels from its centre, components (D, H, W)."""
    axes = [torch.linspace(-(n - 1) / 2, (n - 1) / 2, m) for n, m in zip(shape, lattice_shape(shape), strict=True)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def random_velocity(
    shape: Sequence[int], amplitude: float, spacing: float, octaves: int, generator: torch.Generator
) -> Tensor:
    """(3, d, h, w) on the lattice of ``shape``, in voxels: ``octaves`` random fields, each half as coarse and as far.

    spacing: voxels between the control points of the first; amplitude: its standard deviation there, in voxels.
    """
    lattice = lattice_shape(shape)
    total = torch.zeros(3, *lattice)
    for octave in range(octaves):
        step = spacing * 0.5**octave
        control = [min(max(2, round(n / step) + 1), m) for n, m in zip(shape, lattice, strict=True)]
        field = torch.randn(3, *control, generator=generator)
        total += interpolated(field, lattice) * (amplitude * 0.5**octave * uniform(generator))
    return total


def flow(velocity: Tensor, shape: Sequence[int]) -> Tensor:
    """The displacement (3, d, h, w), in voxels, of following ``velocity`` (voxels a unit of time) for one unit.

    Exact flows do not fold; what the lattice makes of them is checked by `least_jacobian`.
    """
    to_unit = torch.tensor([2 / max(n - 1, 1) for n in shape])
    identity = (lattice_coordinates(shape) * to_unit.view(3, 1, 1, 1)).flip(0)
    displacement = velocity * 0.5**SQUARINGS
    for _ in range(SQUARINGS):
        grid = identity + (displacement * to_unit.view(3, 1, 1, 1)).flip(0)
        grid = grid.permute(1, 2, 3, 0)[None]  # (3, d, h, w) -> (1, d, h, w, 3), x=W first
        moved = F.grid_sample(displacement[None], grid, padding_mode="border", align_corners=True)[0]
        displacement = displacement + moved
    return displacement


def least_jacobian(positions: Tensor, shape: Sequence[int]) -> float:
    """A lower bound of the Jacobian determinant, over a window of ``shape``, of the map trilinear in ``positions``.

    positions: (3, d, h, w) at the lattice points. In a cell each partial derivative is a convex combination of the
    differences along the cell's four edges of that direction, and the determinant is linear in each, so it is nowhere
    below the least determinant of any choice of three edges.
    """
    step = [(n - 1) / max(m - 1, 1) or 1.0 for n, m in zip(shape, positions.shape[1:], strict=True)]
    along_d = _edges((positions[:, 1:] - positions[:, :-1]) / step[0], (2, 3))
    along_h = _edges((positions[:, :, 1:] - positions[:, :, :-1]) / step[1], (1, 3))
    along_w = _edges((positions[..., 1:] - positions[..., :-1]) / step[2], (1, 2))
    least = math.inf
    for b in along_h:
        for c in along_w:
            normal = torch.linalg.cross(b, c, dim=0)
            for a in along_d:
                least = min(least, (a * normal).sum(0).min().item())
    return least


def bent_positions(
    shape: Sequence[int],
    centre: Sequence[float],
    linear_map: Tensor,
    velocity: Tensor | None,
    organs: Sequence[OrganChange] = (),
) -> Tensor:
    """Source positions (3, d, h, w) of the lattice of a window of ``shape`` around ``centre``; they do not fold.

    Bending and organ changes are weakened together until the determinant is everywhere above `LEAST_JACOBIAN` of the
    linear map's, and left out if that does not help.
    """
    start = lattice_coordinates(shape)
    middle = torch.tensor(centre, dtype=torch.float32).view(3, 1, 1, 1)
    least = LEAST_JACOBIAN * torch.linalg.det(linear_map).item()
    strength = 1.0
    for _ in range(TRIES):
        bent = start if velocity is None else start + flow(velocity * strength, shape)
        positions = torch.einsum("ij,jdhw->idhw", linear_map, bent) + middle
        for organ in organs:
            positions = organ(positions, strength)
        if least_jacobian(positions, shape) > least:
            return positions
        strength *= 0.6
    return torch.einsum("ij,jdhw->idhw", linear_map, start) + middle


def position_grid(positions: Tensor, shape: Sequence[int], source_shape: Sequence[int]) -> Tensor:
    """The `F.grid_sample` grid (1, D, H, W, 3), align_corners=True, of lattice ``positions`` (3, d, h, w)."""
    size = torch.tensor(source_shape, dtype=torch.float32).view(3, 1, 1, 1)
    last = size - 1
    # just beyond the scan the border is repeated: positions there slide towards it
    slid = torch.where(positions < 0, (positions + EXTRUDED).clamp(max=0), positions)
    slid = torch.where(positions > last, torch.maximum(positions - EXTRUDED, last), slid)
    unit = slid * (2 / last.clamp(min=1)) - 1
    return interpolated(unit.flip(0), tuple(shape)).permute(1, 2, 3, 0)[None]


def _edges(differences: Tensor, across: tuple[int, int]) -> list[Tensor]:
    """The four edges of one direction of every cell, each (3, cells of D, H, W)."""
    first, second = across
    pairs = []
    for i in (0, 1):
        one = differences.narrow(first, i, differences.shape[first] - 1)
        pairs += [one.narrow(second, j, one.shape[second] - 1) for j in (0, 1)]
    return pairs
