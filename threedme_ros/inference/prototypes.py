"""One labelled example volume segments other volumes: the mean vectors of its structures, and no gradient step.

After Snell et al., "Prototypical Networks for Few-shot Learning" (NeurIPS 2017), equation 1, with several prototypes a
structure, by spherical k-means, because one mean does not describe an organ and its edge.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from threedme_ros.inference.preprocess import PADDING_VALUE, Prepared, prepare, restore_labels
from threedme_ros.inference.segmenter import Segmentation
from threedme_ros.model.checkpoint import Checkpoint
from threedme_ros.model.config import ModelConfig
from threedme_ros.model.embedding import embed
from threedme_ros.model.layers import block_mean, upsample
from threedme_ros.volume import Volume, resample

PER_STRUCTURE, PER_BACKGROUND = 8, 64
MAX_VECTORS = 4000
"""Of a structure, evenly thinned, before k-means."""
ROUNDS = 10
PURITY = 0.5
"""A cell stands for a structure if at least this share of its voxels is that structure."""
TEMPERATURE = 0.05
"""Cosines divided by it are the logits; it only shapes the confidence."""


class PrototypeError(ValueError):
    """The example shows nothing to learn from, or does not fit its labels; the message says what."""


@dataclass(frozen=True, eq=False)
class Prototypes:
    """``vectors`` (N, E) of unit length; ``labels`` (N,) int64, 0 for background; ``mean`` (E,), subtracted first."""

    vectors: Tensor
    labels: Tensor
    mean: Tensor


class PrototypeSegmenter:
    """One checkpoint, for one thread. Each voxel gets the label of the prototype most like its embedding (cosine)."""

    def __init__(self, checkpoint: Checkpoint, *, device: str = "cpu", modality: str = "auto") -> None:
        self.checkpoint, self.modality = checkpoint, modality
        self._device = torch.device(device)
        self._model = checkpoint.build().to(self._device, memory_format=torch.channels_last_3d)

    @torch.inference_mode()
    def learn(self, image: Volume, labels: Volume) -> Prototypes:
        """From an ``image`` and its ``labels`` (uint8, 0 background) on one grid.

        Raises PrototypeError for labels on another grid, or without a structure that fills a cell of two voxels' edge.
        """
        if not image.grid.matches(labels.grid):
            raise PrototypeError(f"labels of shape {labels.shape}: expected the image's grid, {image.shape}")
        prepared = prepare(image, self.checkpoint.preprocessing, self.modality)
        on_grid = np.ascontiguousarray(resample(labels, prepared.grid, order=0).voxels.T)  # (D, H, W)
        names = cell_labels(torch.from_numpy(on_grid.astype(np.int64)), prepared.x.shape).to(self._device)
        vectors = self._vectors(prepared).flatten(1).T  # (cells, E)
        seen = names.flatten() >= 0
        vectors, names = vectors[seen], names.flatten()[seen]
        if not names.any():
            raise PrototypeError("no labelled structure fills a cell of two voxels' edge: expected at least one")
        mean = vectors.mean(0)
        vectors = F.normalize(vectors - mean, dim=1)
        found = {
            label: spherical_means(vectors[names == label], PER_STRUCTURE if label else PER_BACKGROUND)
            for label in names.unique().tolist()
        }
        owners = torch.cat([torch.full((len(v),), label) for label, v in found.items()])
        return Prototypes(torch.cat(list(found.values())), owners, mean)

    @torch.inference_mode()
    def segment(self, volume: Volume, prototypes: Prototypes) -> Segmentation:
        """Labels and confidence on exactly the grid of ``volume``. Raises VolumeError for one that cannot be seen."""
        started = perf_counter()
        prepared = prepare(volume, self.checkpoint.preprocessing, self.modality)
        vectors = F.normalize(self._vectors(prepared) - prototypes.mean.view(-1, 1, 1, 1), dim=0)
        d, h, w = prepared.x.shape
        best = total = labels = None
        for label in prototypes.labels.unique().tolist():
            mine = prototypes.vectors[prototypes.labels == label]
            cosine = torch.einsum("ne,edhw->ndhw", mine, vectors).amax(0)
            score = upsample(cosine[None, None])[0, 0, :d, :h, :w] / TEMPERATURE
            if best is None:
                best, total, labels = score, score, torch.full_like(score, label, dtype=torch.uint8)
                continue
            labels[score > best] = label
            best, total = torch.maximum(best, score), torch.logaddexp(total, score)
        confidence = torch.exp(best - total)
        restored = restore_labels(labels.cpu().numpy(), confidence.cpu().numpy(), prepared)
        timings = {"total": perf_counter() - started}
        return Segmentation(*(volume.with_voxels(v) for v in restored), timings, prepared.warnings)

    def _vectors(self, prepared: Prepared) -> Tensor:
        """(E, D/2, H/2, W/2), padded: the pyramid's vectors at stride 2 and 4, each of unit length, joined."""
        x = F.pad(torch.from_numpy(prepared.x)[None, None], _padding(prepared.x.shape), value=PADDING_VALUE)
        embedding = embed(self._model, x.to(self._device))
        parts = (F.normalize(embedding.level2, dim=1), upsample(F.normalize(embedding.level4, dim=1)))
        return torch.cat(parts, 1)[0].float()


def cell_labels(labels: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """(D, H, W) int64 -> (d, h, w) at stride 2, padded as the network's input: -1 where a cell is mixed or padding."""
    padded = F.pad(labels, _padding(shape), value=-1)
    cells = torch.full([n // 2 for n in padded.shape], -1)
    for label in labels.unique().tolist():
        share = block_mean((padded == label)[None, None].float(), 2)[0, 0]
        cells[share >= PURITY] = label
    return cells


def spherical_means(vectors: Tensor, count: int) -> Tensor:
    """(N, E) of unit length -> at most ``count`` unit vectors, by k-means on the sphere.

    Dhillon & Modha, "Concept decompositions for large sparse text data" (Machine Learning 42, 2001). Starts from the
    mean and, one after another, the vector least like those chosen: the same at every run.
    """
    vectors = vectors[:: 1 + len(vectors) // MAX_VECTORS]
    centres = F.normalize(vectors.mean(0, keepdim=True), dim=1)
    while len(centres) < min(count, len(vectors)):
        least = (vectors @ centres.T).amax(1).argmin()
        centres = torch.cat([centres, vectors[least : least + 1]])
    for _ in range(ROUNDS):
        nearest = (vectors @ centres.T).argmax(1)
        occupied = nearest.unique()
        centres = F.normalize(torch.stack([vectors[nearest == i].mean(0) for i in occupied]), dim=1)
    return centres


def _padding(shape: tuple[int, int, int]) -> list[int]:
    return [p for n in reversed(shape) for p in (0, -n % ModelConfig.STRIDE)]
