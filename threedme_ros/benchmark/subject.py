"""The volumes that are timed: a real CT that fills the grid, and the change that an update sees."""

from __future__ import annotations

import numpy as np

from threedme_ros.intraoperative import resect
from threedme_ros.phantom import phantom
from threedme_ros.samples import SampleError, fetch_samples, sample_case
from threedme_ros.volume import Volume


def subject(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> tuple[Volume, str]:
    """An int16 CT of ``shape`` (R, A, S) and what it is: patient A's CT, mirrored at its borders until it fills the
    grid, so that no part of it is only air; the phantom where the sample cannot be fetched."""
    try:
        image = sample_case("A", fetch_samples()).image().reoriented("RAS")[0].voxels
        what = "patient A's CT, mirrored at its borders until it fills the grid"
    except SampleError:
        image = phantom((122, 101, 112), (3.0, 3.0, 3.0))[0].voxels
        what = "the phantom, mirrored at its borders until it fills the grid"
    for axis, n in enumerate(shape):
        index = np.arange(n) % (2 * image.shape[axis])
        image = image.take(np.where(index < image.shape[axis], index, 2 * image.shape[axis] - 1 - index), axis)
    return Volume(np.asfortranarray(image, np.int16), np.diag([*spacing_mm, 1.0])), what


def changed(volume: Volume, seed: int, radius_mm: float) -> Volume:
    """``volume`` with a resection cavity, its place by ``seed``: tissue moves within three radii of its centre."""
    return resect(volume, radius_mm, seed)
