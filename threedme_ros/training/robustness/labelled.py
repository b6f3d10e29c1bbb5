"""A scan with its truth, and what one Hounsfield unit means in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from threedme_ros.inference.preprocess import CT_BELOW_HU
from threedme_ros.volume import Volume, VolumeError

CT_WINDOW_HU = 800.0
"""The width of the CT window that the network sees: elsewhere, the range of intensities stands for it."""

PERCENTILES = (0.5, 99.5)


@dataclass(frozen=True, eq=False)
class Labelled:
    """image, truth (uint8 ids) and body (bool), all on one grid. A corruption gives another one of these."""

    image: Volume
    truth: Volume
    body: Volume

    def __post_init__(self) -> None:
        for other in (self.truth, self.body):
            if not self.image.grid.matches(other.grid):
                raise VolumeError(f"image {self.image.shape} and labels {other.shape}: expected one grid")

    @property
    def is_ct(self) -> bool:
        return bool(self.image.voxels.min() < CT_BELOW_HU)

    def with_image(self, voxels: np.ndarray) -> Labelled:
        """Other intensities, rounded to and clipped by the image's own type."""
        return Labelled(self.image.with_voxels(as_type(voxels, self.image.voxels.dtype)), self.truth, self.body)


def hu(case: Labelled) -> float:
    """One HU in units of the image: 1 for CT, else 1/800 of the range between its percentiles 0.5 and 99.5."""
    if case.is_ct:
        return 1.0
    low, high = np.percentile(case.image.voxels, PERCENTILES)
    return float(high - low) / CT_WINDOW_HU


def outside(case: Labelled) -> float:
    """What the scan holds where it saw nothing: its lowest value."""
    return float(case.image.voxels.min())


def as_type(voxels: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        voxels = np.clip(np.rint(voxels), limits.min, limits.max)
    return voxels.astype(dtype)
