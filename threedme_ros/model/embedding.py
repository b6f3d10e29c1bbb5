"""What is kept of a volume once the network has seen it: a vector a voxel, for prompts and prototypes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from threedme_ros.model.threedme import ThreeDME


class Embedding(NamedTuple):
    """One window of (D, H, W) voxels, multiples of 16, as the decoder's feature pyramid and its classifier."""

    level2: Tensor
    """(1, C2, D/2, H/2, W/2)"""
    level4: Tensor
    """(1, C4, D/4, H/4, W/4)"""
    level8: Tensor
    """(1, C8, D/8, H/8, W/8)"""
    log_normaliser: Tensor
    """(1, 8, D/2, H/2, W/2): log-sum-exp over the classes of each sub-voxel's logits."""
    weight: Tensor
    """(num_classes, 8, C2): the linear classifier of `level2`, whose logits are never held for all classes."""
    bias: Tensor
    """(num_classes, 8)"""

    def class_probabilities(self, cell: Sequence[int]) -> Tensor:
        """(num_classes,) softmax in the stride-2 ``cell`` (d, h, w), its eight sub-voxels averaged."""
        d, h, w = cell
        logits = self.weight.float() @ self.level2[0, :, d, h, w].float() + self.bias
        return torch.softmax(logits, 0).mean(1)

    def likeness(self, mixture: Tensor) -> Tensor:
        """(1, 8, D/2, H/2, W/2): the probability, in each sub-voxel, of ``mixture`` (num_classes,) of classes.

        Classes of less than 5% are left out, and the rest scaled to sum to 1.
        """
        classes = (mixture >= 0.05).nonzero()[:, 0]
        shares = mixture[classes] / mixture[classes].sum()
        total = torch.zeros_like(self.log_normaliser)
        for c, share in zip(classes.tolist(), shares.tolist(), strict=True):
            logits = torch.einsum("oc,bcdhw->bodhw", self.weight[c], self.level2) + self.bias[c].view(1, 8, 1, 1, 1)
            total += share * torch.exp(logits - self.log_normaliser)
        return total


CLASSES_AT_ONCE = 4


@torch.no_grad()
def embed(model: ThreeDME, x: Tensor) -> Embedding:
    """``x``: (1, in_channels, D, H, W) in [-1, 1], each axis a multiple of 16. ``model`` in eval mode."""
    level2, level4, level8 = model.decoder.pyramid(model.encoder(x))
    head, classes = model.decoder.head, model.config.num_classes
    weight, bias = head.weight.view(classes, 8, -1), head.bias.view(classes, 8)
    log_normaliser = None
    for first in range(0, classes, CLASSES_AT_ONCE):
        last = min(first + CLASSES_AT_ONCE, classes)
        # (n, 8, C2) x (1, C2, ...) -> (1, n, 8, ...)
        logits = torch.einsum("noc,bcdhw->bnodhw", weight[first:last], level2)
        part = torch.logsumexp(logits + bias[first:last].view(1, -1, 8, 1, 1, 1), 1).float()
        log_normaliser = part if log_normaliser is None else torch.logaddexp(log_normaliser, part)
    return Embedding(level2, level4, level8, log_normaliser, weight, bias)
