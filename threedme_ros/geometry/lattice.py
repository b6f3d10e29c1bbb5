"""A volume laid out for fast scans, and the voxel boundaries in it: what meshes, clouds and margins all start from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from threedme_ros.volume import MM_PER_M, Grid, Volume, VolumeError

THREADS = 2
"""Threads a geometry call uses: VTK, SciPy and the simplifier work outside the GIL."""


@dataclass(frozen=True, eq=False)
class Lattice:
    """``voxels`` (I, J, K) C-contiguous, and ``affine`` (4, 4) from their indices to RAS+ mm.

    ``axes`` says which axis of the volume each of ours is; the geometry is that of the volume.
    """

    voxels: np.ndarray
    affine: np.ndarray
    axes: tuple[int, int, int]

    @classmethod
    def of(cls, volume: Volume) -> Lattice:
        """Axes in memory order, slowest first: a view for C and for Fortran (NIfTI) arrays, otherwise one copy."""
        axes = tuple(int(a) for a in np.argsort(-np.abs(volume.voxels.strides), kind="stable"))
        affine = np.array(volume.affine)
        affine[:3, :3] = affine[:3, list(axes)]
        return cls(np.ascontiguousarray(volume.voxels.transpose(axes)), affine, axes)

    def alongside(self, volume: Volume) -> np.ndarray:
        """The voxels (I, J, K) of another volume on the same grid, in this axis order; VolumeError for another grid."""
        voxels = volume.voxels.transpose(self.axes)
        affine = np.array(volume.affine)
        affine[:3, :3] = affine[:3, list(self.axes)]
        if voxels.shape != self.voxels.shape or not Grid(voxels.shape, affine).matches(self.grid):
            raise VolumeError(f"a volume of shape {volume.shape} on another grid: expected the grid of the labels")
        return voxels

    def mapped(self, table: np.ndarray) -> np.ndarray:
        """``table[voxels]`` for uint8 voxels and a table (256,) uint8; ten times faster than numpy's indexing."""
        voxels = self.voxels.astype(np.uint8, copy=False)
        return np.frombuffer(voxels.tobytes().translate(table.tobytes()), np.uint8).reshape(voxels.shape)

    def coarser(self, steps: tuple[int, int, int], pool: np.ufunc) -> Lattice:
        """Of blocks of ``steps`` voxels along each axis, each ``pool`` of its voxels; the last may hold fewer."""
        voxels = self.voxels
        for axis, step in enumerate(steps):
            if step > 1:
                voxels = pool.reduceat(voxels, np.arange(0, voxels.shape[axis], step), axis)
        to_here = np.diag([*steps, 1.0])
        to_here[:3, 3] = (np.array(steps) - 1) / 2
        return Lattice(voxels, self.affine @ to_here, self.axes)

    @property
    def grid(self) -> Grid:
        return Grid(self.voxels.shape, self.affine)

    def to_metres(self, indices: np.ndarray) -> np.ndarray:
        """Fractional voxel indices (N, 3) -> metres (N, 3) float32, RAS+."""
        affine = self.affine / MM_PER_M
        return (indices @ affine[:3, :3].T + affine[:3, 3]).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Boundary:
    """Voxels with at least one exposed face: ``index`` (N, 3) int64, their ``value`` (N,) uint8, and ``surface``
    (N, 3) float32: the mean centre of the exposed faces, in voxel indices.

    A true surface that crosses between two voxel centres is within half a voxel of the face between them, so
    ``surface`` is within half a voxel of it, where the voxel centre can be a whole one away.
    """

    index: np.ndarray
    value: np.ndarray
    surface: np.ndarray


def boundary(values: np.ndarray, exposed: np.ufunc = np.not_equal) -> Boundary:
    """Boundary of ``values`` (I, J, K) uint8, 0 = outside, in scan order.

    exposed: a face counts where ``exposed(neighbour, own)``; outside the array the neighbour is 0, so that a
    structure cut by the border is closed there.
    """
    padded = np.pad(values, 1)
    flat = padded.ravel()
    strides = [padded.shape[1] * padded.shape[2], padded.shape[2], 1]
    found = np.zeros(flat.size, bool)
    for stride in strides:  # contiguous shifts of the flat array: neighbours never wrap, thanks to the padding
        found[:-stride] |= exposed(flat[stride:], flat[:-stride])
        found[stride:] |= exposed(flat[:-stride], flat[stride:])
    found &= flat != 0
    where = np.flatnonzero(found)
    own = flat[where]
    ahead = [exposed(flat[where + stride], own) for stride in strides]
    behind = [exposed(flat[where - stride], own) for stride in strides]
    faces = sum(side.view(np.int8) for side in (*ahead, *behind))
    index = np.stack(np.unravel_index(where, padded.shape), 1) - 1
    surface = index.astype(np.float32)
    half = np.float32(0.5) / faces
    for axis in range(3):
        surface[:, axis] += half * (ahead[axis].view(np.int8) - behind[axis].view(np.int8))
    return Boundary(index, own, surface)


def one_per_cell(points: np.ndarray, cell: float, group: np.ndarray | None = None) -> np.ndarray:
    """Indices (M,) of the points (N, 3), one for each cube of edge ``cell`` (and ``group`` (N,) uint8), in order.

    The point kept is the one nearest its cube's centre, so that what is left is spread evenly.
    """
    scaled = points / cell
    cube = np.floor(scaled)
    off_centre = ((scaled - cube - 0.5) ** 2).sum(1)
    cube = (cube - cube.min(0)).astype(np.int64) if len(points) else cube.astype(np.int64)
    size = cube.max(0, initial=0) + 1
    key = (cube[:, 0] * size[1] + cube[:, 1]) * size[2] + cube[:, 2]
    if group is not None:
        key = key * 256 + group
    order = np.argsort(key)
    starts = np.flatnonzero(np.diff(key[order], prepend=-1))
    if not len(starts):
        return starts
    off_centre = off_centre[order]
    cell_of = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(order)))
    nearest = np.flatnonzero(off_centre == np.minimum.reduceat(off_centre, starts)[cell_of])
    return np.sort(order[nearest[np.flatnonzero(np.diff(cell_of[nearest], prepend=-1))]])
