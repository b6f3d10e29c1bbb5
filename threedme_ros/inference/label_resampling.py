"""Labels from the model's grid to the input's: copy where neighbours agree, vote where they do not.

Never a logit or one-hot volume at full size. All arrays are (D, H, W); outer voxel faces of both grids are aligned, so
the centre of new voxel ``f`` lies at ``(f + 1/2) n / m - 1/2`` among the ``n`` old ones, clamped to the outer centres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CELLS_PER_CHUNK = 2**15


def nearest(array: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """(D, H, W) -> ``shape``: the value of the old voxel that each new centre lies in."""
    centres = (np.floor((np.arange(m) + 0.5) * n / m).astype(np.intp) for n, m in zip(array.shape, shape, strict=True))
    return _take(array, list(centres))


def resample_labels(labels: np.ndarray, confidence: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """(D, H, W) uint8 labels, float confidence > 0 -> uint8 labels of ``shape``.

    Each new voxel lies in a cell between 2 x 2 x 2 old ones. If these agree, it copies them; if not, it takes the label
    with the largest sum of trilinear weight x confidence, the smaller id on a tie.
    """
    axes = [_Axis.between(n, m) for n, m in zip(labels.shape, shape, strict=True)]
    out = _take(labels, [axis.cell for axis in axes])
    lower, upper = labels, labels
    for dimension, axis in enumerate(axes):
        lower = np.minimum(lower, lower.take(axis.next_voxel, dimension))
        upper = np.maximum(upper, upper.take(axis.next_voxel, dimension))
    occupied = axes[0].occupied[:, None, None] & axes[1].occupied[:, None] & axes[2].occupied
    cells = np.argwhere((lower != upper) & occupied)
    for first in range(0, len(cells), CELLS_PER_CHUNK):
        _vote(labels, confidence, axes, cells[first : first + CELLS_PER_CHUNK].T, out)
    return out


@dataclass(frozen=True, eq=False)
class _Axis:
    """One axis of ``n`` old voxels (and as many cells, cell c between voxels c and next_voxel[c]) and ``m`` new ones.

    cell (m,): where each new voxel lies. fraction (m,) float32: how far towards next_voxel. inside (n, most): the new
    voxels of each cell, the last one repeated. occupied (n,): whether a cell has any.
    """

    cell: np.ndarray
    fraction: np.ndarray
    next_voxel: np.ndarray
    inside: np.ndarray
    occupied: np.ndarray

    @classmethod
    def between(cls, n: int, m: int) -> _Axis:
        centre = np.clip((np.arange(m) + 0.5) * n / m - 0.5, 0, n - 1)
        cell = np.floor(centre).astype(np.intp)
        # an axis that keeps its size has each new centre on an old one: only that one counts
        next_voxel = np.minimum(np.arange(n) + (n != m), n - 1)
        count = np.bincount(cell, minlength=n)
        start = np.cumsum(count) - count
        inside = start[:, None] + np.minimum(np.arange(count.max()), np.maximum(count - 1, 0)[:, None])
        return cls(cell, (centre - cell).astype(np.float32), next_voxel, np.minimum(inside, m - 1), count > 0)


def _take(array: np.ndarray, indices: list[np.ndarray]) -> np.ndarray:
    # the innermost axis first, while the array is small: the last and largest step copies whole planes
    for dimension in (2, 1, 0):
        array = array.take(indices[dimension], dimension)
    return array


def _vote(labels: np.ndarray, confidence: np.ndarray, axes: list[_Axis], cells: np.ndarray, out: np.ndarray) -> None:
    """Write the winners of ``cells`` (3, N) into ``out``, all new voxels of a cell at once."""
    corners = np.ix_(*[(0, 1)] * 3)
    ends = [np.stack([c, axis.next_voxel[c]], -1) for c, axis in zip(cells, axes, strict=True)]  # each (N, 2)
    at = tuple(end[:, corner] for end, corner in zip(ends, corners, strict=True))
    at = tuple(np.broadcast_arrays(*at))  # each (N, 2, 2, 2)
    names, weights = labels[at], confidence[at].astype(np.float32, copy=False)
    inside = [axis.inside[c] for c, axis in zip(cells, axes, strict=True)]  # each (N, most)
    fractions = [axis.fraction[i] for i, axis in zip(inside, axes, strict=True)]

    flat = names.reshape(len(names), 8)
    winner = flat.min(1)
    size = [i.shape[1] for i in inside]
    winners = np.broadcast_to(winner[:, None, None, None], (len(names), *size)).copy()
    best = _trilinear(np.where(names == winner[:, None, None, None], weights, 0), fractions)
    candidate, active = winner, np.arange(len(names))
    while True:  # the next larger label of each cell that has one; most cells have two
        rest = flat[active].astype(np.int16)
        rest[rest <= candidate[:, None]] = 256
        candidate = rest.min(1)
        active, candidate = active[candidate < 256], candidate[candidate < 256]
        if not len(active):
            break
        votes = np.where(names[active] == candidate[:, None, None, None], weights[active], 0)
        score = _trilinear(votes, [f[active] for f in fractions])
        wins = score > best[active]
        best[active] = np.maximum(score, best[active])
        winners[active] = np.where(wins, candidate[:, None, None, None], winners[active])
    z, y, x = inside
    out[z[:, :, None, None], y[:, None, :, None], x[:, None, None, :]] = winners


def _trilinear(corners: np.ndarray, fractions: list[np.ndarray]) -> np.ndarray:
    """Corner values (N, 2, 2, 2) at fractions [(N, a), (N, b), (N, c)] -> (N, a, b, c)."""
    z, y, x = fractions
    x, y, z = x[:, None, None, :], y[:, None, :, None], z[:, :, None, None]
    value = corners[..., :1] * (1 - x) + corners[..., 1:] * x  # (N, 2, 2, c)
    value = value[:, :, :1] * (1 - y) + value[:, :, 1:] * y  # (N, 2, b, c)
    return value[:, :1] * (1 - z) + value[:, 1:] * z
