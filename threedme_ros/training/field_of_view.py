"""What of the body a scan shows: whole windows, slabs of few slices, cut-off sides, the cylinder of a cone-beam scan.

Only the box that is seen is computed; the rest of a window is padding, along the axes, as in a prepared volume.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .draws import chance, integer, uniform

FLUSH = 0.5
"""Share of boxes that begin where the window begins, as a prepared volume does."""
CYLINDER = 0.3
LEAST_SIDE, LEAST_DEPTH = 0.5, 0.25
"""A cut-off side, and a slab, keep at least this share of the window."""
SLAB_WINDOW = 1.25
"""The deepest window that shows slabs, in depths of the thickest slab."""


def draw_extent(
    window: tuple[int, int, int],
    generator: torch.Generator,
    slab: float,
    slab_voxels: tuple[int, int],
    cut: float,
) -> tuple[int, int, int]:
    """The size (D, H, W) of the box that is seen in a ``window``.

    slab: chance of few slices, log-uniform between ``slab_voxels``; not in windows much deeper than the most of them,
    and never less than a `LEAST_DEPTH` of the window: padding teaches little for what it costs. cut: chance of cut-off
    sides (and of fewer slices).
    """
    extent = list(window)
    thinnest = min(max(slab_voxels[0], round(LEAST_DEPTH * window[0])), window[0])
    thickest = max(thinnest, min(slab_voxels[1], window[0]))
    if window[0] <= SLAB_WINDOW * slab_voxels[1] and chance(generator, slab):
        extent[0] = round(math.exp(uniform(generator, math.log(thinnest), math.log(thickest))))
    if chance(generator, cut):
        for axis in (1, 2):
            if chance(generator, 0.5):
                extent[axis] = integer(generator, math.ceil(LEAST_SIDE * window[axis]), window[axis])
        if extent[0] == window[0] and chance(generator, 0.3):
            extent[0] = integer(generator, max(thinnest, window[0] // 2), window[0])
    return tuple(extent)


def place(
    extent: tuple[int, int, int], window: tuple[int, int, int], generator: torch.Generator
) -> tuple[slice, slice, slice]:
    """Where in the ``window`` the box lies: at its beginning, as a prepared volume does, or anywhere."""
    flush = chance(generator, FLUSH)
    starts = [0 if flush else integer(generator, 0, n - m) for m, n in zip(extent, window, strict=True)]
    return tuple(slice(start, start + m) for start, m in zip(starts, extent, strict=True))


def cylinder(shape: tuple[int, int, int], radius: float) -> Tensor:
    """(H, W) bool of a (D, H, W) box: the circle of ``radius`` half shorter sides around its middle."""
    _, height, width = shape
    h = torch.arange(height, dtype=torch.float32)[:, None] - (height - 1) / 2
    w = torch.arange(width, dtype=torch.float32)[None, :] - (width - 1) / 2
    return torch.hypot(h, w) < radius * min(height, width) / 2


def draw_cylinder(shape: tuple[int, int, int], generator: torch.Generator) -> Tensor | None:
    """A cone-beam scan's round field of view (H, W) bool in a box ``shape`` (D, H, W), or None for all of it."""
    return cylinder(shape, uniform(generator, 0.8, 1.3)) if chance(generator, CYLINDER) else None
