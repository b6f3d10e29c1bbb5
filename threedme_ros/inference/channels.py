"""Several volumes of one patient as the channels of one input: the four MR sequences of a brain tumour, say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from threedme_ros.inference.preprocess import Prepared, prepare
from threedme_ros.model.config import Preprocessing
from threedme_ros.volume import Volume, VolumeError

GRID_TOLERANCE_MM = 0.05


@dataclass(frozen=True, eq=False)
class PreparedChannels:
    """x: (C, D, H, W) float32 in [-1, 1]. first: the first channel alone, for the way back."""

    x: np.ndarray
    first: Prepared
    warnings: tuple[str, ...]


def prepare_channels(
    volumes: Sequence[Volume], preprocessing: Preprocessing, modalities: Sequence[str]
) -> PreparedChannels:
    """`prepare` each volume with its modality; all lie on one grid. Raises VolumeError that counts the channel."""
    if len(volumes) != len(modalities):
        raise VolumeError(f"{len(volumes)} volumes: expected {len(modalities)}, one a channel")
    for number, volume in enumerate(volumes):
        if not volume.grid.matches(volumes[0].grid, GRID_TOLERANCE_MM):
            raise VolumeError(
                f"channel {number}: shape {volume.shape}, spacing {_mm(volume)}: expected the grid of channel 0, "
                f"shape {volumes[0].shape}, spacing {_mm(volumes[0])} and the same place"
            )
    prepared = []
    for number, (volume, modality) in enumerate(zip(volumes, modalities, strict=True)):
        try:
            prepared.append(prepare(volume, preprocessing, modality))
        except VolumeError as error:
            raise VolumeError(f"channel {number}: {error}" if len(volumes) > 1 else str(error)) from error
    warnings = tuple(dict.fromkeys(w for p in prepared for w in p.warnings))
    return PreparedChannels(np.stack([p.x for p in prepared]), prepared[0], warnings)


def _mm(volume: Volume) -> str:
    return " x ".join(f"{s:.3g}" for s in volume.spacing_mm) + " mm"
