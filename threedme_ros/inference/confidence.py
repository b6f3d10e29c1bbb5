"""From the softmax of the chosen label to how often such a voxel is right.

Platt, "Probabilistic Outputs for Support Vector Machines", 1999, equation 9, on the logit of the confidence: one line
for background and one for structures, each for CT and for the rest. A network trained to find small structures doubts
its background and believes its structures too much; one temperature cannot mend both, and labels must stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from threedme_ros.inference.planes import planes
from threedme_ros.model.weights_file import CheckpointError

GROUPS = ("background", "structures")
MODALITIES = ("ct", "other")
LEVELS = 256
STEEPEST = 100.0
"""Of slope and offset: logits of 256 levels go from -6 to 6, a line steeper than that is a step."""


class ConfidenceMap:
    """slopes and offsets of the logit: modality -> group -> (slope above 0, offset). CheckpointError for any others."""

    def __init__(self, lines: Mapping[str, Mapping[str, tuple[float, float]]]) -> None:
        try:
            self._tables = {m: np.concatenate([table(*lines[m][group]) for group in GROUPS]) for m in MODALITIES}
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"confidence map {lines}: expected {MODALITIES}, each with {GROUPS}") from error

    def apply(self, labels: np.ndarray, confidence: np.ndarray, modality: str) -> np.ndarray:
        """labels, confidence: uint8 of one shape, 255 certain -> the calibrated confidence, uint8."""
        table, calibrated = self._tables[modality], np.empty_like(confidence)
        for plane, certainty, out in planes(labels, confidence, calibrated):
            at = (plane > 0).astype(np.uint16)  # one look-up of 2 x 256 values: half the time of two and a choice
            at *= LEVELS
            at += certainty
            out[...] = table[at]
        return calibrated


def table(slope: float, offset: float) -> np.ndarray:
    """(256,) uint8: the line ``slope`` * logit + ``offset`` for every confidence; 0 and 255 lie half a level in."""
    if not (0 < slope <= STEEPEST and abs(offset) <= STEEPEST):
        raise CheckpointError(f"slope {slope}, offset {offset}: expected numbers up to {STEEPEST:g}, the slope above 0")
    share = np.clip(np.arange(LEVELS) / 255, 0.5 / 255, 254.5 / 255)
    calibrated = 1 / (1 + np.exp(-(slope * np.log(share / (1 - share)) + offset)))
    return np.rint(calibrated * 255).astype(np.uint8)
