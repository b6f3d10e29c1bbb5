"""From encoder features to classes: the light segmentation decoder."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from threedme_ros.model.config import ModelConfig
from threedme_ros.model.encoder import Features
from threedme_ros.model.layers import ConvNormAct, pointwise, upsample


class SegmentationDecoder(nn.Module):
    """A trilinear feature pyramid and a 1x1x1 head on sub-voxels.

    Returns half-resolution logits (B, num_classes * 8, D/2, H/2, W/2): channel c * 8 + o holds class c of sub-voxel
    o = 4 * dz + 2 * dy + dx, so that `depth_to_space` gives (B, num_classes, D, H, W).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c2, c4, c8 = config.channels
        self.refine8 = ConvNormAct(c8, c8)
        self.top4, self.lateral4 = nn.Linear(c8, c4), nn.Linear(c4, c4)
        self.refine4 = ConvNormAct(c4, c4)
        self.top2, self.lateral2 = nn.Linear(c4, c2), nn.Linear(c2, c2)
        self.refine2 = ConvNormAct(c2, c2)
        self.head = nn.Linear(c2, config.num_classes * 8)
        with torch.no_grad():  # start at the usual share of background (Lin et al. 2017, section 4.1)
            self.head.bias.zero_()[:8] = math.log(config.num_classes * 4)

    def pyramid(self, features: Features) -> tuple[Tensor, Tensor, Tensor]:
        """Refined features at stride 2, 4 and 8, channels as in the config: the per-voxel embeddings."""
        x8 = self.refine8(features.level8)
        x4 = self.refine4(upsample(pointwise(x8, self.top4)) + pointwise(features.level4, self.lateral4))
        x2 = self.refine2(upsample(pointwise(x4, self.top2)) + pointwise(features.level2, self.lateral2))
        return x2, x4, x8

    def forward(self, features: Features) -> Tensor:
        return pointwise(self.pyramid(features)[0], self.head)
