"""Clicks on an embedded volume -> one structure: the light decoder that is run again at every click.

After Kirillov et al., "Segment Anything" (ICCV 2023), section 3: a heavy encoder once, a light decoder per prompt. Here
prompts are maps, not tokens: how near a click is, and how alike the clicked place is, by learned cosine similarity at
three levels and by the semantic classes the network already knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from threedme_ros.model.config import MAX_CHANNELS, ModelConfig, finite
from threedme_ros.model.embedding import Embedding
from threedme_ros.model.layers import block_mean, depth_to_space, pointwise, upsample

MAX_HIDDEN, MAX_SIGMAS = 256, 16


@dataclass(frozen=True)
class PromptConfig:
    """Sizes of a prompt decoder over a network whose levels have ``channels``.

    key: channels of the compared embeddings. hidden2, hidden4: of the convolutions at stride 2 and 4. sigmas_mm: widths
    of the bells around each click.
    """

    channels: tuple[int, int, int]
    key: int = 16
    hidden2: int = 12
    hidden4: int = 24
    sigmas_mm: tuple[float, ...] = (6.0, 25.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))
        object.__setattr__(self, "sigmas_mm", finite("sigmas_mm", self.sigmas_mm))
        if len(self.channels) != 3 or not all(type(c) is int and 1 <= c <= MAX_CHANNELS for c in self.channels):
            raise ValueError(f"channels {self.channels}: expected three integers from 1 to {MAX_CHANNELS}")
        for name in ("key", "hidden2", "hidden4"):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= MAX_HIDDEN:
                raise ValueError(f"{name} {value!r}: expected an integer from 1 to {MAX_HIDDEN}")
        if not 1 <= len(self.sigmas_mm) <= MAX_SIGMAS or min(self.sigmas_mm) <= 0:
            raise ValueError(f"sigmas_mm {self.sigmas_mm}: expected 1 to {MAX_SIGMAS} positive numbers")

    @classmethod
    def of_model(cls, config: ModelConfig) -> PromptConfig:
        return cls(config.channels)


@dataclass(frozen=True, eq=False)
class Clicks:
    """``voxels`` (N, 3) float, (d, h, w) in voxels of the window, N at least 1; ``foreground`` (N,) bool, of which at
    least one is true; ``spacing_mm``: of those voxels, along d, h, w."""

    voxels: Tensor
    foreground: Tensor
    spacing_mm: tuple[float, float, float]

    def __post_init__(self) -> None:
        if self.voxels.ndim != 2 or self.voxels.shape[1] != 3 or self.foreground.shape != self.voxels.shape[:1]:
            raise ValueError(
                f"clicks of shape {tuple(self.voxels.shape)} and {tuple(self.foreground.shape)}: expected (N, 3), (N,)"
            )
        if not self.foreground.any():
            raise ValueError(f"{len(self.foreground)} clicks, none in the foreground: expected at least one")


class Projected(NamedTuple):
    """An embedding as the decoder compares and reads it; computed once a volume."""

    embedding: Embedding
    keys: tuple[Tensor, Tensor, Tensor]
    """At stride 2, 4, 8: (1, key, ...) of unit length."""
    detail: Tensor
    """(1, hidden2, D/2, H/2, W/2)"""
    context: Tensor
    """(1, hidden4, D/4, H/4, W/4)"""


def cell_of(voxel: Tensor, stride: int, shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """The cell of a level of ``stride`` and ``shape`` that the position ``voxel`` (3,) lies in, or the nearest one."""
    cells = torch.floor((voxel + 0.5) / stride).long().tolist()
    return tuple(min(max(c, 0), n - 1) for c, n in zip(cells, shape, strict=True))


def bells(clicks: Clicks, foreground: bool, shape: tuple[int, int, int], stride: int, sigmas_mm) -> Tensor:
    """(len(sigmas_mm), *shape): exp(-d^2 / 2 sigma^2), d in mm from each cell's centre to the nearest click.

    Zero everywhere without a click of that kind.
    """
    chosen = clicks.voxels[clicks.foreground == foreground]
    nearest = chosen.new_zeros(len(sigmas_mm), *shape)
    for voxel in chosen:
        for bell, sigma in zip(nearest, sigmas_mm, strict=True):
            along = [
                # the centre of cell n lies at stride * n + (stride - 1) / 2
                torch.exp(
                    -0.5 * (((torch.arange(n, device=v.device) * stride + (stride - 1) / 2) - v) * mm / sigma) ** 2
                )
                for n, v, mm in zip(shape, voxel, clicks.spacing_mm, strict=True)
            ]
            # exp(-(a + b + c)) is a product of three, and the nearest click has the largest
            product = along[0][:, None, None] * (along[1][:, None] * along[2])
            torch.maximum(bell, product, out=bell)
    return nearest


def _channels_last(x: Tensor) -> Tensor:
    """The layout for which torch has a fast convolution of one window on the CPU."""
    return x.contiguous(memory_format=torch.channels_last_3d)


class PromptDecoder(nn.Module):
    """`Projected` volume and `Clicks` -> logits (1, 1, D, H, W), above 0 inside the structure."""

    def __init__(self, config: PromptConfig) -> None:
        super().__init__()
        self.config = config
        self.hash = ""
        """Of the file that it was read from."""
        c2, c4, _ = config.channels
        self.keys = nn.ModuleList(nn.Linear(c, config.key, bias=False) for c in config.channels)
        self.detail, self.context = nn.Linear(c2, config.hidden2), nn.Linear(c4, config.hidden4)
        near = 2 * len(config.sigmas_mm)
        # near, alike at three levels x (fore, back), the classes' likeness x (fore, back)
        self.cues4 = nn.Conv3d(near + 6 + 2, config.hidden4, 3, padding=1)
        self.block4 = nn.Conv3d(config.hidden4, config.hidden4, 3, padding=1)
        self.blocks8 = nn.ModuleList(nn.Conv3d(config.hidden4, config.hidden4, 3, padding=1) for _ in range(3))
        self.top2 = nn.Linear(config.hidden4, config.hidden2)
        self.cues2 = nn.Linear(near + 2 + 16, config.hidden2)
        self.block2 = nn.Conv3d(config.hidden2, config.hidden2, 3, padding=1)
        self.head = nn.Linear(config.hidden2 + 8, 8)
        with torch.no_grad():  # start from what the network knows: the clicked class, sub-voxel by sub-voxel
            self.head.weight[:, config.hidden2 :] = torch.eye(8, device="cpu") * 8
            self.head.bias.fill_(-4)

    def project(self, embedding: Embedding) -> Projected:
        levels = (embedding.level2, embedding.level4, embedding.level8)
        keys = tuple(
            F.normalize(pointwise(level, key).float(), dim=1, eps=1e-3)
            for level, key in zip(levels, self.keys, strict=True)
        )
        return Projected(
            embedding, keys, pointwise(embedding.level2, self.detail), pointwise(embedding.level4, self.context)
        )

    def forward(self, projected: Projected, clicks: Clicks) -> Tensor:
        """Logits of the eight sub-voxels, shuffled into space: (1, 1, D, H, W)."""
        shape2, shape4 = projected.detail.shape[2:], projected.context.shape[2:]
        near2 = torch.cat([bells(clicks, side, shape2, 2, self.config.sigmas_mm) for side in (True, False)])[None]
        near4 = torch.cat([bells(clicks, side, shape4, 4, self.config.sigmas_mm) for side in (True, False)])[None]
        alike2, alike4, alike8 = (
            torch.cat([self._alike(key, clicks, stride, side) for side in (True, False)], 1)
            for key, stride in zip(projected.keys, (2, 4, 8), strict=True)
        )
        fore, back = (self._likeness(projected.embedding, clicks, side) for side in (True, False))
        classes4 = block_mean(torch.cat([fore.mean(1, keepdim=True), back.mean(1, keepdim=True)], 1), 2)
        cues4 = torch.cat([near4, alike4, upsample(alike8), block_mean(alike2, 2), classes4], 1)
        x4 = F.relu(self.cues4(_channels_last(cues4)) + projected.context)
        x8 = block_mean(x4, 2)
        for block in self.blocks8:
            x8 = x8 + F.relu(block(_channels_last(x8)))
        x4 = x4 + upsample(x8)
        x4 = x4 + F.relu(self.block4(_channels_last(x4)))
        x2 = pointwise(_channels_last(torch.cat([near2, alike2, fore, back], 1)), self.cues2) + projected.detail
        x2 = F.relu(x2 + upsample(pointwise(x4, self.top2)))
        x2 = x2 + F.relu(self.block2(_channels_last(x2)))
        return depth_to_space(pointwise(_channels_last(torch.cat([x2, fore], 1)), self.head))

    def _alike(self, key: Tensor, clicks: Clicks, stride: int, side: bool) -> Tensor:
        """(1, 1, ...): the largest cosine to a clicked cell, 0 where all are unlike or nothing was clicked."""
        best = key.new_zeros(1, 1, *key.shape[2:])
        for voxel in clicks.voxels[clicks.foreground == side]:
            d, h, w = cell_of(voxel, stride, key.shape[2:])
            best = torch.maximum(best, (key * key[:, :, d, h, w, None, None, None]).sum(1, keepdim=True))
        return best

    @staticmethod
    def _likeness(embedding: Embedding, clicks: Clicks, side: bool) -> Tensor:
        """(1, 8, ...): the probability of the classes seen where was clicked, the largest over the clicks."""
        device = embedding.log_normaliser.device.type
        with torch.no_grad(), torch.autocast(device, enabled=False):  # a difference of large logits
            best = torch.zeros_like(embedding.log_normaliser)
            for voxel in clicks.voxels[clicks.foreground == side]:
                cell = cell_of(voxel, 2, best.shape[2:])
                best = torch.maximum(best, embedding.likeness(embedding.class_probabilities(cell)))
            return best
