"""Where a volume differs from an earlier one: noise-tolerant, block by block. Arrays are (D, H, W)."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import binary_dilation, find_objects, label
from torch.nn import functional as F

from threedme_ros.inference.tiling import STRIDE, Shape, Window

BLOCK = 4
"""Edge, in voxels, of the cubes whose means are compared: averaging 64 voxels takes the noise down by 8."""

_TOUCHING = np.ones((3, 3, 3), bool)


def block_means(x: np.ndarray) -> np.ndarray:
    """(D, H, W) float32 -> (ceil(D/4), ceil(H/4), ceil(W/4)) float32; blocks at the high end may be smaller."""
    kernel = tuple(min(BLOCK, n) for n in x.shape)  # torch refuses one that is larger than what it averages
    with torch.inference_mode():
        return F.avg_pool3d(torch.from_numpy(x)[None], kernel, BLOCK, ceil_mode=True)[0].numpy()


def changed_blocks(before: np.ndarray, after: np.ndarray, threshold: float, reach: int = 1) -> np.ndarray:
    """Block means -> bool: blocks that differ by more than ``threshold``, and those within ``reach`` blocks of one."""
    changed = np.abs(after - before) > threshold
    if reach and changed.any():
        return binary_dilation(changed, _TOUCHING, reach)
    return changed


def cover(changed: np.ndarray, shape: Shape, sizes: tuple[int, ...], halo: int) -> list[Window]:
    """Windows that keep every changed block at least ``halo`` voxels from their faces, save at the volume's border.

    sizes: the edges a window may have, multiples of 16; an axis that is shorter takes its padded length. Each group of
    changed blocks that touch takes the size with the fewest voxels to compute.
    """
    if not changed.any():
        return []
    groups = find_objects(label(changed, _TOUCHING)[0])
    windows = []
    for group in groups:
        box = [(s.start * BLOCK, min(s.stop * BLOCK, n)) for s, n in zip(group, shape, strict=True)]
        options = [_windows_over(box, shape, size, halo) for size in sizes]
        windows += min((o for o in options if o), key=computed_voxels)
    return windows


def computed_voxels(windows: list[Window]) -> int:
    return sum(w.shape[0] * w.shape[1] * w.shape[2] for w in windows)


def _windows_over(box: list[tuple[int, int]], shape: Shape, size: int, halo: int) -> list[Window]:
    axes = []
    for (first, last), n in zip(box, shape, strict=True):
        padded = -(-n // STRIDE) * STRIDE
        axes.append((min(size, padded), _places(first, last, n, min(size, padded), padded, halo)))
    window = tuple(edge for edge, _ in axes)
    return [
        Window((z, y, x), window, (keep_z, keep_y, keep_x))
        for z, keep_z in axes[0][1]
        for y, keep_y in axes[1][1]
        for x, keep_x in axes[2][1]
    ]


def _places(first: int, last: int, n: int, size: int, padded: int, halo: int) -> list[tuple[int, tuple[int, int]]]:
    """(start, (first kept, last kept)) of the windows along one axis: one, centred, if that is enough."""
    if size < min(2 * halo + STRIDE, padded):  # no room left between the halos
        return []
    centred = _aligned((first + last - size) / 2, padded - size)
    if _serves(centred, size, padded, halo, n, first) >= last:
        return [(centred, (first, last))]
    places = []
    while first < last:
        start = _aligned(first - halo, padded - size)
        end = min(_serves(start, size, padded, halo, n, first), last)
        places.append((start, (first, end)))
        first = end
    return places


def _serves(start: int, size: int, padded: int, halo: int, n: int, first: int) -> int:
    """Up to where a window serves, from ``first`` on; 0 if ``first`` itself lies too near its low face."""
    if start and first - start < halo:
        return 0
    return n if start + size >= padded else start + size - halo


def _aligned(start: float, most: int) -> int:
    return min(max(int(start // STRIDE) * STRIDE, 0), most)
