"""The endless, reproducible stream of windows that are drawn from training cases.

Arrays are (D, H, W) = (S, A, R) on the model's grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from .arms import add_arms
from .augment import PADDING, warp
from .case import TrainingCase
from .draws import chance, pick
from .errors import TrainingError
from .field_of_view import draw_cylinder, draw_extent, place
from .synthesis import real_image, synthesise
from .tissues import AIR, OUTSIDE
from .window_config import WindowConfig
from .window_geometry import draw_grid, draw_linear_map, draw_shape


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
