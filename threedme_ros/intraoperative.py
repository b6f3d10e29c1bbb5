"""Simulated intraoperative change in a CT: a resection cavity that fills with fluid while its walls fall inwards."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import map_coordinates

from threedme_ros.volume import Volume

FLUID_HU = 12.0
FLUID_NOISE_HU = 8.0
WALL_MM = 1.5
"""Width of the soft edge between tissue and fluid."""
COLLAPSE = 0.3
"""How far the wall moves inwards, as a share of the cavity's radius."""
REACH = 3.0
"""Nothing changes farther from the centre than this many radii."""
SOFT_TISSUE_HU = (-50.0, 200.0)
MAX_OFF_CENTRE_MM = 80.0


def resect(volume: Volume, radius_mm: float, seed: int = 0) -> Volume:
    """``volume`` (HU) with a cavity of ``radius_mm`` in its soft tissue; same grid, type and, outside, same voxels.

    The same ``seed`` puts the cavity at the same place for every radius.
    """
    if radius_mm <= 0:
        return volume
    centre = _centre_mm(volume, seed)
    box = _box(volume, centre, REACH * radius_mm)
    indices = np.stack(np.meshgrid(*[np.arange(s.start, s.stop) for s in box], indexing="ij"), -1)
    away = volume.grid.to_mm(indices.reshape(-1, 3)) - centre
    distance = np.linalg.norm(away, axis=1)
    # the tissue now at distance r came from r + pull, so the walls have moved inwards
    pull = COLLAPSE * radius_mm * np.exp(-(((distance - radius_mm) / radius_mm) ** 2))
    pull *= np.clip(REACH - distance / radius_mm, 0, 1)  # continuous at the edge of the box
    source = centre + away * (1 + pull / np.maximum(distance, 1e-6))[:, None]
    tissue = map_coordinates(volume.voxels, volume.grid.to_index(source).T, np.float32, order=1, mode="nearest")
    fluid = FLUID_HU + np.random.default_rng(seed).normal(0, FLUID_NOISE_HU, len(distance))
    wetness = 1 / (1 + np.exp(np.clip((distance - radius_mm) / WALL_MM, -30, 30)))
    changed = (tissue * (1 - wetness) + fluid * wetness).reshape(indices.shape[:3])
    voxels = volume.voxels.copy(order="K")
    within = (distance < REACH * radius_mm).reshape(changed.shape)
    if voxels.dtype.kind in "iu":
        limits = np.iinfo(voxels.dtype)
        changed = np.clip(np.rint(changed), limits.min, limits.max)
    voxels[box] = np.where(within, changed.astype(voxels.dtype), voxels[box])
    return volume.with_voxels(voxels)


def _centre_mm(volume: Volume, seed: int) -> np.ndarray:
    """A soft-tissue voxel not too far from the middle of the volume, in mm; the middle itself if there is none."""
    step = tuple(slice(None, None, max(1, n // 48)) for n in volume.shape)
    coarse = volume.voxels[step]
    low, high = SOFT_TISSUE_HU
    found = np.argwhere((coarse > low) & (coarse < high)) * [s.step for s in step]
    middle = volume.grid.to_mm((np.array([volume.shape]) - 1) / 2)
    points = volume.grid.to_mm(found)
    points = points[np.linalg.norm(points - middle, axis=1) < MAX_OFF_CENTRE_MM]
    return points[np.random.default_rng(seed).integers(len(points))] if len(points) else middle[0]


def _box(volume: Volume, centre_mm: np.ndarray, reach_mm: float) -> tuple[slice, slice, slice]:
    """The voxels that hold a sphere, clipped to the volume."""
    centre = volume.grid.to_index(centre_mm[None])[0]
    # a sphere's extent along voxel axis i is the norm of row i of the inverse affine
    half = reach_mm * np.linalg.norm(np.linalg.inv(volume.affine[:3, :3]), axis=1)
    low = np.maximum(np.floor(centre - half), 0).astype(int)
    high = np.minimum(np.ceil(centre + half) + 1, volume.shape).astype(int)
    return tuple(slice(a, b) for a, b in zip(low, high, strict=True))
