"""How far a confidence is from being right: expected calibration error, over the voxels where the truth can tell.

Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3: voxels are put into equal-width bins by
the confidence of their chosen label; the error is the mean over voxels of |accuracy - mean confidence| of their bin.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from threedme_ros.inference.preprocess import CT_BELOW_HU
from threedme_ros.volume import Volume

from .tissues import body_mask

BINS = 15
BODY_ABOVE_HU = -500.0
"""Halfway from air to fat, for the mean of 3 x 3 voxels of a slice: noise of 160 HU moves that by 50."""

BODY_ABOVE_SHARE = 0.1
"""Where intensities have no unit: of the way from their 1st to their 99th percentile."""

PERCENTILES = (1.0, 99.0)


@dataclass(frozen=True, eq=False)
class Reliability:
    """Per bin of confidence, ascending: ``count``, sum of ``confidence`` and number ``correct``, each (bins,) float64.

    Two of them add up to that of all their voxels.
    """

    count: np.ndarray
    confidence: np.ndarray
    correct: np.ndarray

    def __add__(self, other: Reliability) -> Reliability:
        return Reliability(self.count + other.count, self.confidence + other.confidence, self.correct + other.correct)

    @property
    def error(self) -> float:
        """The expected calibration error, 0 to 1; NaN without a voxel."""
        total = self.count.sum()
        return float(np.abs(self.correct - self.confidence).sum() / total) if total else float("nan")

    @property
    def accuracy(self) -> float:
        """The share of voxels with the right label; NaN without a voxel."""
        total = self.count.sum()
        return float(self.correct.sum() / total) if total else float("nan")


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> Reliability:
    """confidence: (N,) float in 0..1, of the chosen label. correct: (N,) bool."""
    where = np.minimum((confidence * bins).astype(np.intp), bins - 1)
    return Reliability(
        np.bincount(where, minlength=bins).astype(np.float64),
        np.bincount(where, confidence, bins),
        np.bincount(where, correct, bins),
    )


@dataclass(frozen=True)
class CalibrationScore:
    """body: over the voxels of the body. foreground: over those of them where truth or prediction is a structure, a
    stricter figure: most of a body is easily right.
    """

    body: Reliability
    foreground: Reliability


def calibration_score(
    predicted: np.ndarray, confidence: np.ndarray, truth: np.ndarray, body: np.ndarray, known: Collection[int]
) -> CalibrationScore:
    """All arrays of one shape: labels uint8, confidence uint8 (255 certain) or float in 0..1, body bool.

    known: the label ids that the truth can show. A voxel predicted as any other structure is not counted: the truth
    cannot tell whether it is right.
    """
    judged = np.zeros(256, bool)
    judged[[0, *known]] = True
    counted = body & judged[predicted]
    certainty = confidence[counted].astype(np.float32)
    if confidence.dtype == np.uint8:
        certainty /= 255
    p, t = predicted[counted], truth[counted]
    correct, shown = p == t, (p > 0) | (t > 0)
    return CalibrationScore(reliability(certainty, correct), reliability(certainty[shown], correct[shown]))


def body_voxels(volume: Volume) -> np.ndarray:
    """(I, J, K) bool: the largest connected part that is not air, with its gas and lungs, on the volume's own grid.

    Dense is above -300 HU in CT, and above a tenth of the range of intensities elsewhere.
    """
    canonical, reorientation = volume.reoriented("RAS")
    image = canonical.voxels.T  # (D, H, W)
    if image.min() < CT_BELOW_HU:
        threshold = BODY_ABOVE_HU
    else:
        low, high = np.percentile(image, PERCENTILES)
        threshold = low + BODY_ABOVE_SHARE * (high - low)
    dense = ndimage.uniform_filter(image.astype(np.float32), (1, 3, 3)) > threshold
    return reorientation.invert(body_mask(dense).T)
