"""Volumes in space: voxels, an affine, and the frame the affine maps into.

The one place that knows RAS+, LPS+ and millimetres. An array here is indexed ``[i, j, k]`` as in NIfTI, and the
affine maps voxel *centres* ``(i, j, k)`` to millimetres, x = Right, y = Anterior, z = Superior.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from nibabel import orientations

from threedme_ros.refusal import RefusalError

MM_PER_M = 1000.0
MIN_SPACING_MM, MAX_SPACING_MM = 0.01, 50.0
MAX_SPACING_RATIO = 100.0
"""Of the largest to the smallest along a volume's axes; slabs of MR come to 20."""
LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Its own inverse: left-multiply an affine (or homogeneous points) to go RAS+ <-> LPS+."""


class VolumeError(RefusalError):
    """The input is no volume this package can place in space; the message names the value and what was expected."""


class VolumeIOError(VolumeError):
    """Bytes or a file hold no volume this package reads; the message says what and why, in one line."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Where voxels are: ``shape`` (I, J, K) and ``affine`` (4, 4) float64, voxel index -> RAS+ mm."""

    shape: tuple[int, int, int]
    affine: np.ndarray

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        if len(shape) != 3 or min(shape) < 1:
            raise VolumeError(f"shape {tuple(self.shape)}: expected three axes of at least one voxel")
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", checked_affine(self.affine))

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along i, j, k, in mm."""
        return tuple(float(s) for s in np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def voxel_volume_ml(self) -> float:
        return float(abs(np.linalg.det(self.affine[:3, :3])) / MM_PER_M)

    @property
    def orientation(self) -> str:
        """The closest anatomical axis each array axis points to, as three letters, e.g. ``"RAS"`` or ``"LPS"``."""
        return "".join(orientations.aff2axcodes(self.affine))

    def to_mm(self, indices: np.ndarray) -> np.ndarray:
        """Voxel indices (N, 3), fractional allowed -> RAS+ mm (N, 3)."""
        return np.asarray(indices) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def to_index(self, points_mm: np.ndarray) -> np.ndarray:
        """RAS+ mm (N, 3) -> fractional voxel indices (N, 3)."""
        return (np.asarray(points_mm) - self.affine[:3, 3]) @ np.linalg.inv(self.affine[:3, :3]).T

    def matches(self, other: Grid, tolerance_mm: float = 1e-3) -> bool:
        """Same shape, and every corner within ``tolerance_mm``."""
        if self.shape != other.shape:
            return False
        corners = np.stack(np.meshgrid(*[(0, n - 1) for n in self.shape], indexing="ij"), -1).reshape(-1, 3)
        return bool(np.abs(self.to_mm(corners) - other.to_mm(corners)).max() <= tolerance_mm)

    def scaled(self, shape: tuple[int, int, int]) -> Grid:
        """The grid of ``shape`` that covers the same field of view, outer voxel faces aligned."""
        step = np.array(self.shape) / np.array(shape)
        to_here = np.diag([*step, 1.0])
        to_here[:3, 3] = (step - 1) / 2  # centre of the first new voxel, half a voxel in from the same face
        return Grid(shape, self.affine @ to_here)


@dataclass(frozen=True)
class Reorientation:
    """An axis permutation with flips, exactly invertible: arrays go through as views, no voxel is computed.

    ``transform`` is nibabel's (3, 2) orientation array: for each input axis, its output axis and direction.
    """

    transform: tuple[tuple[int, int], ...]

    def apply(self, array: np.ndarray) -> np.ndarray:
        return orientations.apply_orientation(array, np.array(self.transform))

    def invert(self, array: np.ndarray) -> np.ndarray:
        back = [(0, 1)] * 3
        for source, (target, direction) in enumerate(self.transform):
            back[target] = (source, direction)
        return orientations.apply_orientation(array, np.array(back))


@dataclass(frozen=True, eq=False)
class Volume:
    """``voxels`` (I, J, K), a real scalar dtype; ``affine`` (4, 4), voxel index -> RAS+ mm in ``frame_id``.

    Raises VolumeError for other ranks, complex or structured (RGB) voxels, and a non-finite or singular affine.
    """

    voxels: np.ndarray
    affine: np.ndarray
    frame_id: str = "patient"

    def __post_init__(self) -> None:
        voxels = np.asarray(self.voxels)
        if voxels.ndim != 3:
            raise VolumeError(f"{voxels.ndim}-D array of shape {voxels.shape}: expected 3-D (I, J, K)")
        if voxels.dtype.kind not in "biuf":
            raise VolumeError(f"voxels of type {voxels.dtype}: expected real scalars (integer, float or bool)")
        object.__setattr__(self, "voxels", voxels)
        object.__setattr__(self, "affine", Grid(voxels.shape, self.affine).affine)

    @property
    def grid(self) -> Grid:
        return Grid(self.voxels.shape, self.affine)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.voxels.shape

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        return self.grid.spacing_mm

    def with_voxels(self, voxels: np.ndarray) -> Volume:
        """Other values (labels, confidence) on exactly this grid."""
        if voxels.shape != self.voxels.shape:
            raise VolumeError(f"voxels of shape {voxels.shape}: expected the grid's {self.voxels.shape}")
        return replace(self, voxels=voxels)

    def reoriented(self, codes: str = "RAS") -> tuple[Volume, Reorientation]:
        """Axes permuted and flipped to the closest ``codes``; an oblique rotation stays in the affine.

        Returns the volume (a view of these voxels) and the step taken, whose ``invert`` brings any array of the new
        shape back to this grid bit for bit.
        """
        step = orientations.ornt_transform(orientations.io_orientation(self.affine), orientations.axcodes2ornt(codes))
        reorientation = Reorientation(tuple((int(axis), int(direction)) for axis, direction in step))
        affine = self.affine @ orientations.inv_ornt_aff(step, self.voxels.shape)
        return Volume(reorientation.apply(self.voxels), affine, self.frame_id), reorientation


def checked_affine(affine: np.ndarray) -> np.ndarray:
    """A (4, 4) float64 copy; VolumeError unless it is finite, affine, and invertible."""
    affine = np.array(affine, dtype=np.float64)
    if affine.shape != (4, 4):
        raise VolumeError(f"affine of shape {affine.shape}: expected (4, 4)")
    if not np.isfinite(affine).all():
        raise VolumeError(f"affine {affine.tolist()}: expected finite numbers")
    if not np.allclose(affine[3], (0, 0, 0, 1)):
        raise VolumeError(f"affine with last row {affine[3].tolist()}: expected [0, 0, 0, 1]")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if spacing.min() <= 0 or abs(np.linalg.det(affine[:3, :3] / spacing)) < 1e-3:
        raise VolumeError(f"singular affine {affine[:3].tolist()}: expected three independent voxel axes")
    affine.setflags(write=False)
    return affine


def check_spacing(spacing_mm: tuple[float, float, float]) -> None:
    """VolumeError for one that no scanner has: work in mm on such a grid may never end."""
    least, most = min(spacing_mm), max(spacing_mm)
    if not (least >= MIN_SPACING_MM and most <= min(MAX_SPACING_MM, MAX_SPACING_RATIO * least)):
        text = ", ".join(f"{s:.4g}" for s in spacing_mm)
        raise VolumeError(
            f"voxel spacing ({text}) mm: expected {MIN_SPACING_MM:g} to {MAX_SPACING_MM:g} mm, the largest at most "
            f"{MAX_SPACING_RATIO:g} times the smallest; are the units mm?"
        )


def resample(volume: Volume, grid: Grid, order: int = 1, fill: float | None = None) -> Volume:
    """``volume`` sampled at the voxel centres of ``grid``, through mm, for any pair of affines.

    order: 0 nearest (labels), 1 trilinear. fill: the value outside the volume; None extends the border voxels.
    No smoothing: to shrink an image by much, see `threedme_ros.inference.preprocess.rescale`.
    """
    from scipy.ndimage import affine_transform

    to_source = np.linalg.inv(volume.affine) @ grid.affine
    voxels = affine_transform(
        volume.voxels,
        to_source[:3, :3],
        to_source[:3, 3],
        output_shape=grid.shape,
        output=volume.voxels.dtype if order == 0 else np.float32,
        order=order,
        mode="nearest" if fill is None else "grid-constant",
        cval=0 if fill is None else fill,
        prefilter=False,
    )
    return Volume(voxels, grid.affine, volume.frame_id)
