"""Training cases: labelled volumes on the model's grid, ready to draw windows from.

Arrays are (D, H, W) = (S, A, R), as `threedme_ros.inference.preprocess.prepare` makes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from threedme_ros.inference.preprocess import prepare
from threedme_ros.model.config import Preprocessing
from threedme_ros.volume import Volume, resample

from .errors import TrainingError
from .substances import Substance
from .tissues import Tissues, find_tissues

LOCATIONS_PER_CLASS = 4000


@dataclass(frozen=True, eq=False)
class TrainingCase:
    """One labelled volume, ready to draw from.

    image: (D, H, W) float32 in [-1, 1]. tissue: (D, H, W) uint8, see `Tissues`. labels: (D, H, W) uint8, the model's
    classes. locations: class id -> (N, 3) voxel coordinates of some of its voxels. real: False where no scan lies
    behind the case (a procedural phantom): every window of it is synthesised.
    """

    name: str
    image: Tensor
    tissue: Tensor
    labels: Tensor
    tissues: Tissues
    locations: Mapping[int, Tensor]
    real: bool = True

    @cached_property
    def organs(self) -> dict[int, tuple[Tensor, Tensor]]:
        """Class id -> centre and half extents (3,) in voxels of the ellipsoid with the moments of its voxels."""
        ellipsoids = {}
        for label, where in self.locations.items():
            places = where.float()
            spread = places.std(0, correction=0) * 5**0.5  # a uniform ellipsoid's half axis over its deviation
            ellipsoids[label] = places.mean(0), spread.clamp(min=2.0)
        return ellipsoids


def training_case(
    name: str,
    volume: Volume,
    structures: Volume,
    labels: Volume,
    preprocessing: Preprocessing,
    families: Mapping[int, int] | None = None,
    kinds: Mapping[int, int] | None = None,
    substances: Mapping[int, tuple[Substance, Substance]] | None = None,
) -> TrainingCase:
    """Bring a CT, its source segmentation (all ids) and the model's labels to the model's grid; find the tissues.

    families, kinds, substances: source id -> tissues that look the same, families that tend to (see `Tissues`), and
    what its two parts are made of (see `find_tissues`).
    """
    prepared = prepare(volume, preprocessing, "ct")
    low, high = preprocessing.ct_window_hu

    def to_unit(hu: float) -> float:
        return float(np.clip((hu - low) / (high - low) * 2 - 1, -1, 1))

    on_grid = [np.ascontiguousarray(resample(v, prepared.grid, order=0).voxels.T) for v in (structures, labels)]
    tissue, tissues = find_tissues(
        prepared.x, *on_grid, families or {}, kinds or {}, to_unit, substances, preprocessing.ct_window_hu
    )
    target = torch.from_numpy(on_grid[1].astype(np.uint8))
    return TrainingCase(
        name, torch.from_numpy(prepared.x), torch.from_numpy(tissue), target, tissues, class_locations(target)
    )


def class_locations(labels: Tensor) -> dict[int, Tensor]:
    """Foreground class id -> (N, 3) int coordinates of at most `LOCATIONS_PER_CLASS` of its voxels, evenly thinned."""
    found = {}
    for label in labels.unique().tolist():
        if label:
            where = (labels == label).nonzero()
            found[label] = where[:: 1 + len(where) // LOCATIONS_PER_CLASS].clone()
    if not found:
        raise TrainingError("labels hold no foreground class: expected at least one")
    return found
