"""The whole network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from threedme_ros.model.config import ModelConfig
from threedme_ros.model.encoder import Encoder, Features
from threedme_ros.model.heads import SegmentationDecoder
from threedme_ros.model.layers import depth_to_space


def best_class(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The largest of (B, C, ...) logits and its class, (B, ...) each.

    Exported graphs ask for both by one TopK, which saves a runtime one of two passes over the logits; torch itself is
    faster at max.
    """
    if torch.compiler.is_exporting():
        best, labels = logits.topk(1, dim=1)
        return best[:, 0], labels[:, 0]
    return logits.max(dim=1)


class ThreeDME(nn.Module):
    """3DME with a segmentation decoder. Input (B, in_channels, D, H, W) in [-1, 1], D, H, W multiples of 16."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = SegmentationDecoder(config)

    def half_logits(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes, 8, D/2, H/2, W/2), the eight sub-voxels not yet shuffled into space."""
        stride = self.config.STRIDE
        if any(n % stride for n in x.shape[2:]):
            raise ValueError(f"input of shape {tuple(x.shape)}: expected D, H, W to be multiples of {stride}")
        return self.sub_voxel_logits(self.encoder(x))

    def sub_voxel_logits(self, features: Features) -> Tensor:
        """`half_logits` from the encoder's features."""
        logits = self.decoder(features)
        return logits.reshape(logits.shape[0], self.config.num_classes, 8, *logits.shape[2:])

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes, D, H, W)."""
        return depth_to_space(self.half_logits(x).flatten(1, 2))

    def predict(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Labels (B, D, H, W) int64 and confidence (B, D, H, W) float, the softmax of the chosen class.

        The argmax is taken on sub-voxels, before the shuffle: the same labels with a seventeenth of the data moved.
        """
        logits = self.half_logits(x).float()
        best, labels = best_class(logits)  # (B, 8, D/2, H/2, W/2)
        confidence = 1 / (logits - best[:, None]).exp().sum(dim=1)
        return depth_to_space(labels)[:, 0], depth_to_space(confidence)[:, 0]
