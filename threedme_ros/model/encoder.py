"""The dual-branch encoder: stem, ViT and voxel graph side by side, joined by plane attention."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from threedme_ros.model.config import ModelConfig
from threedme_ros.model.layers import Downsample, ResidualBlock, pointwise, space_to_depth, upsample
from threedme_ros.model.plane_attention import PlaneAttentionBlock
from threedme_ros.model.vit import ViTBranch
from threedme_ros.model.voxel_graph import VoxelGraphBranch


class Features(NamedTuple):
    """What the encoder knows of (B, C, D, H, W) voxels, finest first. Channels are ``config.channels``, vit_dim."""

    level2: Tensor
    """(B, C2, D/2, H/2, W/2): the stem."""
    level4: Tensor
    """(B, C4, D/4, H/4, W/4): the graph branch."""
    level8: Tensor
    """(B, C8, D/8, H/8, W/8): both branches, fused."""
    tokens: Tensor | None
    """(B, vit_dim, D/t, H/t, W/t): the ViT branch, t = token_size; None in a network without it."""


class Marks(NamedTuple):
    """What pretraining adds at masked places, zero elsewhere (`threedme_ros.model.reconstruction`)."""

    nodes: Tensor
    """(B, C4, D/4, H/4, W/4), added to the graph branch's stride-4 nodes."""
    tokens: Tensor | None
    """(B, vit_dim, D/t, H/t, W/t), added to the ViT branch's tokens."""


class Stem(nn.Module):
    """(B, in_channels, D, H, W) -> (B, channels, D/2, H/2, W/2): space-to-depth, one 3x3x3 convolution, ReLU.

    No norm: the input is normalised. The biases start spread over [-1, 1], the range of the input, so that the channels
    switch on at different intensities.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(8 * in_channels, channels, 3, padding=1)
        nn.init.uniform_(self.conv.bias, -1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(space_to_depth(x)))


class NoGraph(nn.Module):
    """In place of the graph branch: the same two levels, and no message from one voxel to another."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.down = Downsample(*config.channels[1:])

    def forward(self, x4: Tensor) -> tuple[Tensor, Tensor]:
        return x4, self.down(x4)


class Encoder(nn.Module):
    """(B, in_channels, D, H, W), each axis a multiple of 16 -> `Features`. ``marks`` are for pretraining only.

    A part that ``config`` switches off is not built: without the graph branch its stride-8 level is a projection of
    the stem's, without the ViT branch no tokens are joined or sampled, without plane attention the sum of the two
    branches is all the fusion there is.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c2, c4, c8 = config.channels
        self.config = config
        self.stem2 = Stem(config.in_channels, c2)
        self.stem4 = nn.Sequential(Downsample(c2, c4), ResidualBlock(c4))
        self.vit = ViTBranch(config) if config.vit else None
        self.graph = VoxelGraphBranch(config) if config.graph else NoGraph(config)
        self.join = nn.Linear(config.vit_dim, c8) if config.vit else None
        levels = (c4, c8, config.vit_dim) if config.vit else (c4, c8)
        self.fusion = nn.ModuleList(
            PlaneAttentionBlock(c8, levels, config.plane_heads, config.plane_points)
            for _ in range(config.plane_layers if config.plane_attention else 0)
        )

    def forward(self, x: Tensor, marks: Marks | None = None) -> Features:
        x2 = self.stem2(x)
        x4 = self.stem4(x2)
        tokens = None
        if self.vit is not None:
            tokens = self.vit(x4, None if marks is None else marks.tokens)
        g4, fused = self.graph(x4 if marks is None else x4 + marks.nodes)
        if tokens is not None:
            fused = fused + upsample(pointwise(tokens, self.join), self.config.token_size // 8)
        for block in self.fusion:
            fused = block(fused, [g4, fused] if tokens is None else [g4, fused, tokens])
        return Features(x2, g4, fused, tokens)
