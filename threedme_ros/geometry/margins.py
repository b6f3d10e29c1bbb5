"""No-go anatomy grown by its safety margins in mm, as an obstacle cloud for a planner.

Growing is a thresholded Euclidean distance transform with the voxel spacing: a voxel belongs to the grown set if its
centre is within the margin of a structure's voxel, whatever the affine (oblique, anisotropic, even sheared). It is
computed on packed bits, 64 voxels a word, as a union of shifted rows. The shell of the grown set is then moved onto
the exact offset: to the margin's distance from the structure's own surface, which is known better than a voxel. Voxels
much finer than the margin are first joined to blocks, each as much of an obstacle as its worst voxel.

Where the segmentation is unsure the margin widens: by nothing at a confidence of 75 % or more, by half of
``low_confidence_mm`` from 50 % up, by all of it below. So a lower confidence never makes a margin smaller.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
from scipy.spatial import cKDTree

from threedme_ros.anatomy import Anatomy, Role
from threedme_ros.geometry.lattice import THREADS, Boundary, Lattice, boundary, one_per_cell
from threedme_ros.volume import MM_PER_M, Volume

RESOLUTION_M = 0.005
LOW_CONFIDENCE_MM = 2.0
THINNING = 0.38  # of the resolution: cubes that keep one point each; measured, no hole is then wider than it
FIRST_THINNING = 0.2  # the same before points are moved onto the offset: only so fine that moving opens no hole
MARGIN_VOXELS = 32
"""The largest margin in voxels, or blocks of them: work grows with its square, and bits move by less than a word."""
_WORD = 64


def obstacle_points(
    labels: Volume,
    confidence: Volume | None,
    anatomy: Anatomy,
    *,
    resolution_m: float = RESOLUTION_M,
    low_confidence_mm: float = LOW_CONFIDENCE_MM,
) -> np.ndarray:
    """Points (N, 3) float32 m, RAS+, on the surface of all no-go structures, each grown by its margin, united.

    Every point of that surface has one of these within half a ``resolution_m`` (the octomap's edge), or within a
    voxel where voxels are larger. Voxels finer than a `MARGIN_VOXELS`-th of the largest margin may push it outwards by
    twice that, never inwards. Of an abdomen (16 structures, 256x256x128) that is 150,000 points at 5 mm.
    confidence: (I, J, K) uint8 on the labels' grid, or None for certain everywhere.
    Raises ValueError for a resolution that is not positive or a negative ``low_confidence_mm``.
    """
    if not resolution_m > 0:
        raise ValueError(f"resolution_m {resolution_m}: expected a positive edge length in metres")
    if not low_confidence_mm >= 0:
        raise ValueError(f"low_confidence_mm {low_confidence_mm}: expected zero or more mm")
    lattice = Lattice.of(labels)
    no_go = [s for s in anatomy if s.role is Role.NO_GO]
    margins = sorted({s.margin_mm for s in no_go})
    rank = np.zeros(256, np.uint8)  # structures of one margin are one solid; 0 is free
    for s in no_go:
        rank[s.id] = margins.index(s.margin_mm) + 1
    certain = None if confidence is None else Lattice(lattice.alongside(confidence), lattice.affine, lattice.axes)
    lattice = Lattice(lattice.mapped(rank), lattice.affine, lattice.axes)
    steps = _steps(lattice.affine, max(margins, default=0.0) + (low_confidence_mm if certain else 0.0))
    if max(steps) > 1:
        lattice, certain = lattice.coarser(steps, np.maximum), certain and certain.coarser(steps, np.minimum)
    ranks = lattice.voxels
    # Faces towards free space or a smaller margin: what lies behind an equal or larger margin adds nothing.
    found = boundary(ranks, np.less)
    if not len(found.index):
        return np.zeros((0, 3), np.float32)
    reach = np.array([0.0, *margins])[found.value]
    if certain is not None:
        reach = reach + widening(certain.voxels[tuple(found.index.T)], low_confidence_mm)
    return _grown_shell(lattice, ranks > 0, found, reach, resolution_m)


def _per_mm(edges: np.ndarray) -> np.ndarray:
    """(3,) the farthest index a distance of 1 mm can reach along each axis, for any angle between the axes."""
    return np.linalg.norm(np.linalg.inv(edges), axis=1)


def _steps(affine: np.ndarray, reach_mm: float) -> tuple[int, int, int]:
    """How many voxels along each axis are joined to one, so that ``reach_mm`` is at most `MARGIN_VOXELS` of them."""
    return tuple(max(1, int(np.ceil(n / MARGIN_VOXELS))) for n in reach_mm * _per_mm(affine[:3, :3]))


def widening(confidence: np.ndarray, low_confidence_mm: float) -> np.ndarray:
    """mm (N,) to add to the margin at confidence (N,) uint8, 255 = certain; non-increasing in confidence."""
    share = confidence.astype(np.float32) / 255
    return low_confidence_mm * (0.5 * (share < 0.75) + 0.5 * (share < 0.5))


def _grown_shell(
    lattice: Lattice, solid: np.ndarray, found: Boundary, reach_mm: np.ndarray, resolution_m: float
) -> np.ndarray:
    """The surface of ``solid`` (I, J, K) bool grown by ``reach_mm`` (N,) at each boundary voxel."""
    edges = lattice.affine[:3, :3]
    pad = np.ceil((reach_mm.max() + 2 * max(lattice.grid.spacing_mm)) * _per_mm(edges)).astype(int) + 1
    low = np.maximum(found.index.min(0) - pad, -pad)
    size = found.index.max(0) + pad + 1 - low
    at = found.index - low

    shape = (*size[:2], -(-size[2] // _WORD) * _WORD)
    crop = np.zeros(shape, bool)
    start, stop = np.maximum(low, 0), np.minimum(low + size, solid.shape)
    inside = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    crop[tuple(slice(a, b) for a, b in zip(start - low, stop - low, strict=True))] = solid[inside]
    grown = packed(crop)
    parts = {}
    for margin in np.unique(reach_mm):
        chosen = np.flatnonzero(reach_mm == margin)
        seeds = np.zeros(shape, bool)
        seeds[tuple(at[chosen].T)] = True
        parts[margin] = dilated(packed(seeds), edges, float(margin))
        grown |= parts[margin]

    metres = lattice.to_metres
    shell = boundary(unpacked(grown))
    sources = metres(found.surface)
    outline = metres(shell.surface + low)
    kept = one_per_cell(outline, resolution_m * FIRST_THINNING)
    outline, where = outline[kept], shell.index[kept]
    left = np.ones(len(kept), bool)
    clouds = []
    slack = 2 * sum(lattice.grid.spacing_mm) / MM_PER_M  # the outline is nearer than two voxels to the offset
    for margin, bits in parts.items():
        mine = left & _bit(bits, where)
        left &= ~mine
        chosen = reach_mm == margin
        clouds.append(_at_distance(outline[mine], sources[chosen], margin / MM_PER_M, slack))
    points = np.concatenate([*clouds, outline[left]])
    return points[one_per_cell(points, resolution_m * THINNING)]


def _at_distance(points: np.ndarray, sources: np.ndarray, distance: float, slack: float) -> np.ndarray:
    """Points (N, 3) moved along the line to their nearest source (S, 3) until they are ``distance`` from it.

    Each point has a source within ``distance + slack``: the bound makes the search a sixth faster.
    """
    if not len(points):
        return points
    tree = cKDTree(sources, leafsize=32, balanced_tree=False, compact_nodes=False)
    away, nearest = tree.query(points, workers=THREADS, distance_upper_bound=distance + slack)
    foot = sources[nearest]
    return (foot + (points - foot) * (distance / np.maximum(away, 1e-9))[:, None]).astype(np.float32)


def packed(mask: np.ndarray) -> np.ndarray:
    """(I, J, K) bool, K a multiple of 64 -> (I, J, K/64) uint64, the lowest bit first."""
    return np.packbits(mask, axis=2, bitorder="little").view("<u8")


def unpacked(words: np.ndarray) -> np.ndarray:
    """(I, J, K/64) uint64 -> (I, J, K) uint8 of 0 and 1."""
    return np.unpackbits(words.view(np.uint8), axis=2, bitorder="little")


def _bit(words: np.ndarray, index: np.ndarray) -> np.ndarray:
    """(N,) bool: the packed voxels at ``index`` (N, 3)."""
    i, j, k = index.T
    return (words[i, j, k // _WORD] >> (k % _WORD).astype(np.uint64)) & np.uint64(1) != 0


def dilated(words: np.ndarray, edges: np.ndarray, radius_mm: float) -> np.ndarray:
    """Every voxel whose centre is within ``radius_mm`` of the centre of a set one.

    words: packed (I, J, K/64); nothing set within ``radius_mm`` of the array's border. edges: (3, 3), the voxel axes
    as columns, mm.
    """
    out = np.zeros_like(words)
    rows: dict[tuple[int, int], np.ndarray] = {}
    for i, j, low, high in _ball_rows(edges, radius_mm):
        if (low, high) not in rows:
            rows[low, high] = row = _shifted(words, low).copy()
            for k in range(low + 1, high + 1):
                row |= _shifted(words, k)
        n_i, n_j = words.shape[:2]
        target = out[max(i, 0) : n_i + min(i, 0), max(j, 0) : n_j + min(j, 0)]
        target |= rows[low, high][max(-i, 0) : n_i + min(-i, 0), max(-j, 0) : n_j + min(-j, 0)]
    return out


def _ball_rows(edges: np.ndarray, radius_mm: float) -> Iterator[tuple[int, int, int, int]]:
    """Offsets (i, j, lowest k, highest k) of the voxels within ``radius_mm``, for any voxel axes."""
    reach = np.floor(radius_mm * _per_mm(edges) + 1e-9).astype(int)
    k = np.arange(-reach[2], reach[2] + 1)
    for i, j in product(range(-reach[0], reach[0] + 1), range(-reach[1], reach[1] + 1)):
        offsets = edges[:, :1] * i + edges[:, 1:2] * j + edges[:, 2:] * k
        within = k[(offsets**2).sum(0) <= radius_mm**2 + 1e-9]
        if len(within):
            yield i, j, int(within[0]), int(within[-1])


def _shifted(words: np.ndarray, k: int) -> np.ndarray:
    """The packed rows moved by ``k`` voxels, |k| <= 63, zeros moving in."""
    if k == 0:
        return words
    out = words << np.uint64(k) if k > 0 else words >> np.uint64(-k)
    carry = words >> np.uint64(_WORD - k) if k > 0 else words << np.uint64(_WORD + k)
    if k > 0:
        out[..., 1:] |= carry[..., :-1]
    else:
        out[..., :-1] |= carry[..., 1:]
    return out
