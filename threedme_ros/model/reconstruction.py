"""The encoder as a masked autoencoder: what hides a masked voxel from both branches, and the head that restores it.

A mask is (B, d, h, w) bool on the token grid, True where hidden; one cell is a cube of ``token_size`` voxels.

**Nothing leaks**, since hiding comes before the stem: every voxel of a masked token is replaced by one learned value a
channel, so the stem, whose 3x3x3 kernels reach over a token's faces, never sees what was there. Whatever the encoder
computes is a function of the visible voxels and of the mask alone.

**What the branches see.** A constant could also be anatomy, so masked places are marked: a learned vector is added to
the token of every masked cell (ViT) and another to every masked stride-4 node (graph). In the graph branch masked nodes
stay on the lattice. Near a mask's face they receive messages from visible nodes, one ring a layer, so the graph
continues local structure inwards; visible nodes receive the mark as a message, which says "unknown there". Deep inside
a block all masked nodes look alike to the graph, and their nearest neighbours in feature space are each other: what is
there can only come from the ViT, by the join and the plane attention. So a block of one token is work for the graph,
and a large block is work for the ViT: that is what the progressive schedule walks through.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from threedme_ros.model.config import ModelConfig
from threedme_ros.model.encoder import Encoder, Features, Marks
from threedme_ros.model.layers import ConvNormAct, depth_to_space, pointwise, upsample


def enlarge(mask: Tensor, factor: int) -> Tensor:
    """(B, d, h, w) on a coarse grid -> (B, 1, d * factor, h * factor, w * factor), each cell repeated."""
    for axis in (1, 2, 3):
        mask = mask.repeat_interleave(factor, axis)
    return mask[:, None]


class ReconstructionHead(nn.Module):
    """`Features` -> voxels (B, in_channels, D, H, W) in the input's units.

    Light on purpose (one refinement a level, then 4x4x4 voxels from each stride-4 place): what it needs to know, the
    encoder must have worked out. Both branches feed it: stride 4 is the graph's, stride 8 the fusion of both.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        _, c4, c8 = config.channels
        self.refine8 = ConvNormAct(c8, c8)
        self.top4, self.lateral4 = nn.Linear(c8, c4), nn.Linear(c4, c4)
        self.refine4 = ConvNormAct(c4, c4)
        self.voxels = nn.Linear(c4, config.in_channels * 64)

    def forward(self, features: Features) -> Tensor:
        x8 = self.refine8(features.level8)
        x4 = self.refine4(upsample(pointwise(x8, self.top4)) + pointwise(features.level4, self.lateral4))
        return depth_to_space(depth_to_space(pointwise(x4, self.voxels)))


class MaskedAutoencoder(nn.Module):
    """Hide, encode, restore (He et al. 2022, with every token kept: the graph and the planes need the full lattice).

    ``encoder`` is a plain `Encoder`: its state_dict is what a pretrained `ThreeDME` starts from.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.head = ReconstructionHead(config)
        self.fill = nn.Parameter(torch.zeros(config.in_channels))
        self.node_mark = nn.Parameter(torch.randn(config.channels[1]) * 0.02)
        self.token_mark = nn.Parameter(torch.randn(config.vit_dim) * 0.02) if config.vit else None

    def hide(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, in_channels, D, H, W) with the learned value in every voxel of a masked token."""
        expected = (x.shape[0], *(n // self.config.token_size for n in x.shape[2:]))
        if mask.dtype != torch.bool or tuple(mask.shape) != expected:
            raise ValueError(f"mask {mask.dtype} {tuple(mask.shape)}: expected torch.bool {expected}, one a token")
        hidden = enlarge(mask, self.config.token_size)
        return torch.where(hidden, self.fill[:, None, None, None].to(x.dtype), x)

    def encode(self, x: Tensor, mask: Tensor) -> Features:
        """x (B, in_channels, D, H, W) in [-1, 1], each axis a multiple of 16; mask (B, d, h, w) bool."""
        nodes = enlarge(mask, self.config.token_size // 4) * self.node_mark[:, None, None, None]
        tokens = None if self.token_mark is None else mask[:, None] * self.token_mark[:, None, None, None]
        return self.encoder(self.hide(x, mask), Marks(nodes, tokens))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """The voxels (B, in_channels, D, H, W) the network expects, visible and hidden ones alike."""
        return self.head(self.encode(x, mask))
