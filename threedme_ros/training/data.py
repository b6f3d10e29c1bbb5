"""Training cases and the endless, reproducible stream of windows drawn from them.

Arrays are (D, H, W) = (S, A, R) on the model's grid, as `threedme_ros.inference.preprocess.prepare` makes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from threedme_ros.inference.preprocess import prepare
from threedme_ros.model.config import ModelConfig, Preprocessing
from threedme_ros.volume import Volume, resample

from .augment import (
    PADDING,
    WarpConfig,
    chance,
    integer,
    random_acquisition,
    random_displacement,
    random_field_of_view,
    random_linear_map,
    sampling_grid,
    uniform,
    warp,
)
from .substances import Substance
from .synthesis import synthesise
from .tissues import OUTSIDE, Tissues, find_tissues

LOCATIONS_PER_CLASS = 4000


class TrainingError(ValueError):
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
    what its darker and its brighter half are made of.
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
    """What the stream draws.

    shapes: window shapes (D, H, W) and their weights; thin ones are for thin scans too. synthetic: share of
    synthesised images. field_of_view: share of windows with a cut-off field of view.
    """

    shapes: tuple[tuple[int, int, int], ...] = ((96, 96, 96), (48, 112, 128), (112, 112, 128), (16, 176, 176))
    weights: tuple[float, ...] = (0.5, 0.25, 0.1, 0.15)
    synthetic: float = 0.5
    field_of_view: float = 0.3
    warp: WarpConfig = field(default_factory=WarpConfig)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shapes", tuple(tuple(int(n) for n in s) for s in self.shapes))
        object.__setattr__(self, "weights", tuple(float(w) for w in self.weights))
        if not self.shapes or len(self.shapes) != len(self.weights) or min(self.weights) <= 0:
            raise TrainingError(f"weights {self.weights} for shapes {self.shapes}: expected a positive one a shape")
        for shape in self.shapes:
            if len(shape) != 3 or any(n < 1 or n % ModelConfig.STRIDE for n in shape):
                raise TrainingError(f"window shape {shape}: expected three multiples of {ModelConfig.STRIDE}")
        for name in ("synthetic", "field_of_view"):
            if not 0 <= getattr(self, name) <= 1:
                raise TrainingError(f"{name} {getattr(self, name)}: expected a share from 0 to 1")


def pick(weights: Sequence[float], generator: torch.Generator) -> int:
    return int(torch.multinomial(torch.tensor(weights, dtype=torch.float32), 1, generator=generator))


def draw_shape(case: TrainingCase, config: WindowConfig, generator: torch.Generator) -> tuple[int, int, int]:
    """A window shape that is not mostly empty: at most twice as deep as the scan, or as flat as there is."""
    flattest = min(shape[0] for shape in config.shapes)
    limit = max(flattest, 2 * case.image.shape[0])
    fitting = [i for i, shape in enumerate(config.shapes) if shape[0] <= limit]
    return config.shapes[fitting[pick([config.weights[i] for i in fitting], generator)]]


def draw_centre(
    case: TrainingCase, shape: tuple[int, int, int], generator: torch.Generator
) -> tuple[float, float, float]:
    """The window's centre in voxels of the case, class-balanced: near a random voxel of a random class.

    On an axis where the window holds the whole scan, the scan lies anywhere inside the window; elsewhere the window
    stays inside the scan.
    """
    classes = list(case.locations)
    where = case.locations[classes[integer(generator, 0, len(classes) - 1)]]
    voxel = where[integer(generator, 0, len(where) - 1)].tolist()
    centre = []
    for v, n, window in zip(voxel, case.image.shape, shape, strict=True):
        middle, slack = (n - 1) / 2, abs(n - window) / 2
        if window < n:
            v += uniform(generator, -0.3, 0.3) * window
            centre.append(min(max(v, middle - slack), middle + slack))
        else:
            centre.append(middle + uniform(generator, -slack, slack))
    return tuple(centre)


def draw_window(
    case: TrainingCase, shape: tuple[int, int, int], config: WindowConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """One training pair: image (D, H, W) float32 in [-1, 1] and labels (D, H, W) uint8."""
    linear_map, displacement = torch.eye(3), None
    if chance(generator, config.warp.share):
        linear_map = random_linear_map(config.warp, generator)
        if config.warp.elastic_voxels > 0:
            displacement = random_displacement(shape, config.warp, generator)
    grid = sampling_grid(case.image.shape, shape, draw_centre(case, shape, generator), linear_map, displacement)
    image, tissue = warp(case.image, case.tissue, grid)
    seen = random_field_of_view(shape, generator, config.field_of_view)
    if seen is not None:
        tissue.masked_fill_(~seen, OUTSIDE)
    if chance(generator, config.synthetic) or not case.real:
        image = synthesise(image, tissue, case.tissues, generator)
    else:
        image = real_image(image, tissue, case.tissues, generator)
    return image, case.tissues.target[tissue.int()]


def real_image(image: Tensor, tissue: Tensor, tissues: Tissues, generator: torch.Generator) -> Tensor:
    """The scan itself, acquired anew: now and then every tissue family enhances a little differently."""
    if chance(generator, 0.5):
        shift = torch.randn(int(tissues.family.max()) + 1, generator=generator) * uniform(generator, 0.0, 0.12)
        shift = torch.where(tissues.dark, 0.0, shift[tissues.family])
        image = image + shift.index_select(0, tissue.flatten().int()).view(image.shape)
    image = random_acquisition(image, generator)
    return image.masked_fill_(tissue == OUTSIDE, PADDING)


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
        generator = torch.Generator().manual_seed(window_seed(self.seed, index))
        case = self.cases[pick(self.weights, generator)]
        image, labels = draw_window(case, draw_shape(case, self.config, generator), self.config, generator)
        return image[None], labels
