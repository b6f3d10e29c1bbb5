"""What any header says about the voxels behind it, checked before a voxel is touched."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from threedme_ros.volume import Volume, VolumeIOError, checked_affine

_BLOCK = 32


@dataclass(frozen=True, eq=False)
class VoxelBlock:
    """``shape`` (I, J, K), i fastest in memory; ``dtype`` as stored; value = raw * slope + inter; ``affine`` RAS+ mm.

    The affine is rounded to float32 values here, at the door: that is what NIfTI-1 can carry, so a label volume encoded
    on this grid decodes to the same affine bit for bit, whichever format the image came in (1e-5 mm at 500 mm).
    """

    shape: tuple[int, int, int]
    dtype: np.dtype
    affine: np.ndarray
    slope: float = 1.0
    inter: float = 0.0

    def __post_init__(self) -> None:
        with np.errstate(all="ignore"):
            affine = np.asarray(self.affine, np.float64).astype(np.float32)
        object.__setattr__(self, "affine", checked_affine(affine))

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def volume(self, data: memoryview | bytearray, offset: int, frame_id: str) -> Volume:
        """The voxels at ``data[offset:]``: a view of ``data`` unless they must be scaled, swapped or aligned."""
        check_length(len(data) - offset, self.nbytes)
        voxels = np.frombuffer(data, self.dtype, math.prod(self.shape), offset).reshape(self.shape, order="F")
        if (self.slope, self.inter) != (1.0, 0.0):
            with np.errstate(all="ignore"):
                raw, voxels = voxels, voxels.astype(np.float32)
                voxels *= np.float32(self.slope)
                voxels += np.float32(self.inter)
                made, stored = ((v.min(), v.max()) for v in (voxels, raw))  # which any NaN comes through
            if not np.isfinite(made).all() and np.isfinite(stored).all():
                raise VolumeIOError(
                    f"slope {self.slope:g}, intercept {self.inter:g}, voxels as stored from {stored[0]:g} to "
                    f"{stored[1]:g}: expected finite values in float32"
                )
        elif not self.dtype.isnative or not voxels.flags.aligned:
            voxels = voxels.astype(self.dtype.newbyteorder("="), order="F")
        return Volume(voxels, self.affine, frame_id)


def check_length(held: int, claimed: int) -> None:
    """VolumeIOError unless the bytes that came are the bytes the header claims."""
    if held < claimed:
        raise VolumeIOError(f"truncated: header claims {claimed} bytes of voxels, {max(held, 0)} are there")
    if held > claimed:
        raise VolumeIOError(f"trailing data: {held - claimed} bytes after the {claimed} the header claims")


def checked_shape(sizes: tuple[int, ...], max_voxels: int) -> tuple[int, int, int]:
    """Three axes of at least one voxel, at most ``max_voxels`` together; further axes must be 1 long."""
    sizes = tuple(int(n) for n in sizes)
    if any(abs(n) >= 1 << 63 for n in sizes):  # Python does not even print a number of 5,000 digits
        raise VolumeIOError("dimensions of more than 63 bits: expected a volume")
    if any(n < 1 for n in sizes):
        raise VolumeIOError(f"dimensions {sizes}: expected at least one voxel along each axis")
    if len(sizes) != 3 and (len(sizes) < 3 or set(sizes[3:]) != {1}):
        raise VolumeIOError(f"{len(sizes)}-D image of {sizes}: expected 3-D (I, J, K)")
    if math.prod(sizes) > max_voxels:
        raise VolumeIOError(f"too many voxels: {sizes[:3]} is {math.prod(sizes)}, the limit is {max_voxels}")
    return sizes[:3]


def storable(voxels: np.ndarray) -> np.ndarray:
    """``voxels`` in the nearest little-endian type that every format here knows; a view where nothing changes."""
    kind, size = voxels.dtype.kind, voxels.dtype.itemsize
    dtype = np.dtype({"b": "u1"}.get(kind, f"{kind}{min(max(size, 4), 8) if kind == 'f' else size}"))
    return voxels.astype(dtype.newbyteorder("<"), copy=False)


def fill_fortran(out: bytearray, offset: int, voxels: np.ndarray) -> None:
    """Write ``voxels`` (I, J, K) into ``out[offset:]``, i fastest. One memcpy where they already lie so.

    Where another axis is the fast one, block by block, so that reads and writes both stay in the cache: 17 ms instead
    of 48 for 16.8 MB.
    """
    target = np.frombuffer(out, voxels.dtype, voxels.size, offset).reshape(voxels.shape, order="F")
    strides = np.abs(voxels.strides)
    if strides[0] == strides.min():
        target[...] = voxels
        return
    steps = [range(0, n, _BLOCK) for n in voxels.shape]
    for i, j, k in itertools.product(*steps):
        block = np.s_[i : i + _BLOCK, j : j + _BLOCK, k : k + _BLOCK]
        target[block] = voxels[block]
