"""Nearest-neighbour classification in embedding space: labelled examples, a frozen encoder, and no gradient step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from threedme_ros.model.encoder import Encoder

TEMPERATURE = 0.07
NEIGHBOURS = 20


@torch.inference_mode()
def volume_vectors(encoder: Encoder, x: Tensor) -> Tensor:
    """(B, in_channels, D, H, W) in [-1, 1], multiples of 16 -> (B, E) of unit length.

    Each branch (the fused level at stride 8, the ViT's tokens) is averaged over its places and brought to unit length,
    so that both count alike; a network without a ViT has the first only.
    """
    features = encoder(x)
    levels = [level for level in (features.level8, features.tokens) if level is not None]
    parts = [F.normalize(level.flatten(2).mean(2).float(), dim=1) for level in levels]
    return F.normalize(torch.cat(parts, 1), dim=1)


@dataclass(frozen=True, eq=False)
class Neighbours:
    """``vectors`` (N, E) of labelled volumes, ``labels`` (N,) from 0 to ``num_classes`` - 1, ``k`` of them vote.

    Votes weigh exp(cosine / temperature), Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance
    Discrimination" (CVPR 2018), section 3.4. The examples' mean is subtracted first: it tells nothing apart.
    """

    vectors: Tensor
    labels: np.ndarray
    num_classes: int
    k: int = NEIGHBOURS
    temperature: float = TEMPERATURE

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or len(self.vectors) != len(self.labels) or not len(self.labels):
            raise ValueError(
                f"{len(self.labels)} labels for vectors {tuple(self.vectors.shape)}: expected (N, E), (N,)"
            )
        if min(self.labels) < 0 or max(self.labels) >= self.num_classes:
            raise ValueError(
                f"labels from {min(self.labels)} to {max(self.labels)}: expected 0 to {self.num_classes - 1}"
            )
        if not self.k >= 1:
            raise ValueError(f"k {self.k}: expected at least 1 neighbour")

    def probabilities(self, vectors: Tensor) -> np.ndarray:
        """(M, E) -> (M, num_classes), the share of the votes; all examples vote if there are fewer than ``k``."""
        mean = self.vectors.mean(0)
        known, asked = F.normalize(self.vectors - mean, dim=1), F.normalize(vectors - mean, dim=1)
        cosine, index = (asked @ known.T).topk(min(self.k, len(self.labels)), dim=1)
        weights = torch.softmax(cosine / self.temperature, 1)
        votes = torch.zeros(len(vectors), self.num_classes)
        votes.scatter_add_(1, torch.as_tensor(np.asarray(self.labels))[index], weights.cpu())
        return votes.numpy()
