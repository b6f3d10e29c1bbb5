"""Which windows of a volume the network sees, and which voxels it keeps of each. Pure integer geometry.

A volume that fits goes through whole. Otherwise windows of one shape overlap, and each voxel is taken from the window
in which it lies deepest: labels are final in each window, so nothing is blended and no full-size logits exist.
All shapes and positions are voxels in (D, H, W).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np

from threedme_ros.inference.preprocess import PADDING_VALUE

Shape = tuple[int, int, int]

STRIDE = 16
"""Window shapes and positions are multiples of it, so every window cuts tokens where the whole volume does."""

COARSE_ABOVE = 160
"""Longer axes are padded to multiples of 32: a scanner whose slice count varies meets few shapes, so few engines."""

DEFAULT_HALO = 16


@dataclass(frozen=True)
class Window:
    """``shape`` voxels from ``start``, reaching past the volume's high end where it needs padding.

    keep: the half-open range (first, last) on each axis, in volume voxels, whose labels come from this window.
    """

    start: Shape
    shape: Shape
    keep: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

    @property
    def kept(self) -> tuple[slice, slice, slice]:
        """Where the kept voxels lie in the volume."""
        return tuple(slice(first, last) for first, last in self.keep)

    @property
    def kept_inside(self) -> tuple[slice, slice, slice]:
        """Where the kept voxels lie in the window's own array."""
        return tuple(slice(first - s, last - s) for s, (first, last) in zip(self.start, self.keep, strict=True))

    def cut(self, x: np.ndarray) -> np.ndarray:
        """The window of ``x`` (D, H, W) as a C-contiguous float32 array, padded with -1."""
        part = x[tuple(slice(s, s + n) for s, n in zip(self.start, self.shape, strict=True))]
        if part.shape == self.shape:
            return np.ascontiguousarray(part, np.float32)
        padded = np.full(self.shape, PADDING_VALUE, np.float32)
        padded[tuple(slice(n) for n in part.shape)] = part
        return padded


def padded_shape(shape: Shape) -> Shape:
    """The window that holds a whole volume of ``shape``: each axis up to a multiple of 16, or of 32 above 160.

    Padding goes to the high end: voxel 0 stays voxel 0, so the cut is a prefix and tokens keep their voxels whatever
    the padding.
    """
    return tuple(_round_up(n, STRIDE if n <= COARSE_ABOVE else 2 * STRIDE) for n in shape)


def plan_windows(shape: Shape, max_voxels: int, halo: int = DEFAULT_HALO) -> list[Window]:
    """One window if the padded volume has at most ``max_voxels``; else the cover that computes the fewest voxels.

    Every voxel of ``shape`` is kept by exactly one window, ``halo`` or more voxels from each window face that is not
    at the volume's border. All windows have the same shape. ValueError for a ``max_voxels`` that cannot hold a halo.
    """
    if min(shape) < 1:
        raise ValueError(f"shape {shape}: expected three axes of at least one voxel")
    if halo < 0 or halo % STRIDE:
        raise ValueError(f"halo {halo}: expected a non-negative multiple of {STRIDE} voxels")
    least = (2 * halo + STRIDE) ** 3
    if max_voxels < least:
        raise ValueError(f"max_window_voxels {max_voxels}: expected at least {least}, for a halo of {halo} voxels")
    whole = padded_shape(shape)
    if prod(whole) <= max_voxels:
        return [Window((0, 0, 0), whole, tuple((0, n) for n in shape))]
    window = _cheapest_window(shape, max_voxels, halo)
    axes = [_axis_windows(n, size, halo) for n, size in zip(shape, window, strict=True)]
    return [
        Window(tuple(start for start, _ in places), window, tuple(keep for _, keep in places))
        for places in product(*axes)
    ]


def _cheapest_window(shape: Shape, max_voxels: int, halo: int) -> Shape:
    options = [_sizes_by_count(n, halo).items() for n in shape]
    fitting = [axes for axes in product(*options) if prod(size for _, size in axes) <= max_voxels]
    # fewest voxels computed; of equals the fewest windows
    best = min(fitting, key=lambda axes: (prod(count * size for count, size in axes), prod(count for count, _ in axes)))
    return tuple(size for _, size in best)


def _sizes_by_count(n: int, halo: int) -> dict[int, int]:
    """For each number of windows that can cover an axis of ``n`` voxels, the smallest size that does."""
    sizes = range(_round_up(n, STRIDE), 2 * halo, -STRIDE) or [_round_up(n, STRIDE)]
    return {len(_axis_windows(n, size, halo)): size for size in sizes}


def _axis_windows(n: int, size: int, halo: int) -> list[tuple[int, tuple[int, int]]]:
    """Evenly spread (start, (first kept, last kept)) along an axis of ``n`` voxels."""
    padded = _round_up(n, STRIDE)
    if size >= padded:
        return [(0, (0, n))]
    step = size - 2 * halo
    count = 1 + -(-(padded - size) // step)
    # spread evenly: the overlap beyond the halo is shared by all. Rounded down to STRIDE, no gap exceeds ``step``
    starts = [i * (padded - size) // (count - 1) // STRIDE * STRIDE for i in range(count)]
    # the middle of the overlap of two windows is where a voxel lies equally deep in both
    cuts = [(starts[i] + size + starts[i + 1]) // 2 for i in range(count - 1)]
    return list(zip(starts, zip([0, *cuts], [*cuts, n], strict=True), strict=True))


def _round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple
