"""Training cases and the endless, reproducible stream of windows drawn from them.

Arrays are (D, H, W) = (S, A, R) on the model's grid, as `threedme_ros.inference.preprocess.prepare` makes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from threedme_ros.inference.preprocess import prepare
from threedme_ros.model.config import ModelConfig, Preprocessing
from threedme_ros.refusal import RefusalError
from threedme_ros.volume import Volume, resample

from .arms import add_arms
from .augment import PADDING, WarpConfig, warp
from .draws import chance, pick
from .field_of_view import draw_cylinder, draw_extent, place
from .substances import Substance
from .synthesis import SynthesisConfig, real_image, synthesise
from .tissues import AIR, OUTSIDE, Tissues, find_tissues
from .window_geometry import draw_grid, draw_linear_map, draw_shape

LOCATIONS_PER_CLASS = 4000


class TrainingError(RefusalError):
    """A training run cannot start or go on; the message names the value and what was expected."""


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


@dataclass(frozen=True)
class WindowConfig:
    """What the stream draws. Shares go from 0 (never) to 1 (always).

    shapes: window shapes (D, H, W) and their weights; thin ones are for thin scans too. synthetic: share of
    synthesised images. field_of_view: share of windows with a cut-off field of view. slab: share of flat windows in
    which only slab_voxels (from, to) slices are seen. organs: share of windows in which up to three organs grow or
    shrink by organ_scale and shift by up to organ_shift_voxels. arms: share of windows with room beside the body, and
    arms there. warp: how everything is turned, scaled and bent.
    synthesis: contrasts, acquisition and artefacts.
    """

    shapes: tuple[tuple[int, int, int], ...] = ((96, 96, 96), (48, 112, 128), (112, 112, 128), (16, 176, 176))
    weights: tuple[float, ...] = (0.5, 0.25, 0.1, 0.15)
    synthetic: float = 0.5
    field_of_view: float = 0.3
    slab: float = 0.5
    slab_voxels: tuple[int, int] = (6, 40)
    organs: float = 0.5
    organ_scale: tuple[float, float] = (0.7, 1.4)
    organ_shift_voxels: float = 4.0
    arms: float = 0.15
    warp: WarpConfig = field(default_factory=WarpConfig)
    synthesis: SynthesisConfig = field(default_factory=SynthesisConfig)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shapes", tuple(tuple(int(n) for n in s) for s in self.shapes))
        object.__setattr__(self, "weights", tuple(float(w) for w in self.weights))
        object.__setattr__(self, "slab_voxels", tuple(int(n) for n in self.slab_voxels))
        object.__setattr__(self, "organ_scale", tuple(float(s) for s in self.organ_scale))
        if not self.shapes or len(self.shapes) != len(self.weights) or min(self.weights) <= 0:
            raise TrainingError(f"weights {self.weights} for shapes {self.shapes}: expected a positive one a shape")
        for shape in self.shapes:
            if len(shape) != 3 or any(n < 1 or n % ModelConfig.STRIDE for n in shape):
                raise TrainingError(f"window shape {shape}: expected three multiples of {ModelConfig.STRIDE}")
        for name in ("synthetic", "field_of_view", "slab", "organs", "arms"):
            if not 0 <= getattr(self, name) <= 1:
                raise TrainingError(f"{name} {getattr(self, name)}: expected a share from 0 to 1")
        if len(self.slab_voxels) != 2 or not 1 <= self.slab_voxels[0] <= self.slab_voxels[1]:
            raise TrainingError(f"slab_voxels {self.slab_voxels}: expected (fewest, most) slices, at least 1")
        if len(self.organ_scale) != 2 or not 0.5 <= self.organ_scale[0] <= self.organ_scale[1] <= 2:
            raise TrainingError(f"organ_scale {self.organ_scale}: expected (smallest, largest) from 0.5 to 2")
        if not 0 <= self.organ_shift_voxels <= 50:
            raise TrainingError(f"organ_shift_voxels {self.organ_shift_voxels}: expected voxels from 0 to 50")


def draw_window(
    case: TrainingCase, window: tuple[int, int, int], config: WindowConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """One training pair: image (D, H, W) float32 in [-1, 1] and labels (D, H, W) uint8.

    Only the box that is seen is computed; around it the window is padding, as around a prepared volume.
    """
    linear_map, warped = draw_linear_map(case, window, config, generator)
    extent = draw_extent(window, generator, config.slab, config.slab_voxels, config.field_of_view)
    scales = linear_map.norm(dim=0).tolist()
    shape = tuple(
        max(1, min(e, round(n / scale))) for e, n, scale in zip(extent, case.image.shape, scales, strict=True)
    )
    wide = chance(generator, config.arms)
    if wide:  # arms need room: air beside the scan
        shape = (shape[0], *extent[1:])
    image, tissue = warp(case.image, case.tissue, draw_grid(case, shape, linear_map, warped, config, generator))
    if wide:
        beside = tissue == OUTSIDE
        added = beside | add_arms(tissue.masked_fill_(beside, AIR), case.tissues, generator)
        image = torch.where(added, case.tissues.mean[tissue.int()], image)
    if extent[1:] != window[1:]:
        seen = draw_cylinder(shape, generator)
        if seen is not None:
            tissue.masked_fill_(~seen, OUTSIDE)
    if not case.real:
        drawn = synthesise(None, tissue, case.tissues, generator, config.synthesis)
    elif chance(generator, config.synthetic):
        drawn = synthesise(image, tissue, case.tissues, generator, config.synthesis)
    else:
        drawn = real_image(image, tissue, case.tissues, generator, config.synthesis)
    where = place(shape, window, generator)
    padded, labels = torch.full(window, PADDING), torch.zeros(window, dtype=torch.uint8)
    padded[where], labels[where] = drawn, case.tissues.target[tissue.int()]
    return padded, labels


def window_seed(seed: int, index: int) -> int:
    """32 bits from both: torch's CPU generator ignores the upper half of a 64-bit seed."""
    return int(np.random.SeedSequence((seed, index)).generate_state(1)[0])


class WindowStream(Dataset):
    """Window ``i`` of the stream ``seed``: the same pair whenever and wherever it is drawn.

    cases and their weights (A twice as often as B, say). Gives (image (1, D, H, W) float32, labels (D, H, W) uint8).
    """

    def __init__(
        self, cases: Sequence[TrainingCase], weights: Sequence[float], config: WindowConfig, seed: int, length: int
    ) -> None:
        if not cases or len(cases) != len(weights):
            raise TrainingError(f"{len(weights)} weights for {len(cases)} cases: expected one a case, at least one")
        self.cases, self.weights, self.config, self.seed, self.length = cases, weights, config, seed, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if not 0 <= index < self.length:
            raise IndexError(index)
        case, generator = self._case(index)
        image, labels = draw_window(case, draw_shape(case, self.config, generator), self.config, generator)
        return image[None], labels

    def name(self, index: int) -> str:
        """Of the case that window ``index`` is cut from."""
        return self._case(index)[0].name

    def _case(self, index: int) -> tuple[TrainingCase, torch.Generator]:
        generator = torch.Generator().manual_seed(window_seed(self.seed, index))
        return self.cases[pick(self.weights, generator)], generator
