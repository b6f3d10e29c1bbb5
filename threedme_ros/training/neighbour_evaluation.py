"""`threedme evaluate TASK --neighbours K`: how well a frozen encoder tells classes apart, with nothing trained."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from threedme_ros.inference.neighbours import Neighbours, volume_vectors
from threedme_ros.model.config import ModelConfig
from threedme_ros.model.encoder import Encoder
from threedme_ros.model.foundation import Foundation

from .class_metrics import accuracy, auc
from .datasets.medmnist3d import LabelledImages
from .task_samples import to_input
from .task_table import ClassificationTask

BATCH = 8


def frozen_encoder(foundation: Foundation, device: str = "cpu") -> Encoder:
    """The foundation's encoder in eval mode. CheckpointError where weights do not fit."""
    config: ModelConfig = foundation.config
    encoder = Encoder(config)
    foundation.initialise(encoder)
    return encoder.eval().to(device, memory_format=torch.channels_last_3d)


def vectors_of(encoder: Encoder, images: LabelledImages, shape: tuple[int, int, int], device: str = "cpu") -> Tensor:
    """(N, E) for N images, brought to ``shape`` (D, H, W)."""
    found = []
    for first in range(0, len(images), BATCH):
        batch = torch.stack([to_input(image, shape) for image in images.images[first : first + BATCH]])
        found.append(volume_vectors(encoder, batch.to(device)).cpu())
    return torch.cat(found)


def evaluate_neighbours(
    task: ClassificationTask, splits: Mapping[str, LabelledImages], foundation: Foundation, k: int, device: str = "cpu"
) -> dict[str, dict]:
    """AUC and ACC on the official validation and test splits, voted by the training split. NaN AUC becomes None."""
    encoder = frozen_encoder(foundation, device)
    train = splits["train"]
    neighbours = Neighbours(
        vectors_of(encoder, train, task.input_shape, device), train.labels, task.num_classes, min(k, len(train))
    )
    result = {}
    for split in ("val", "test"):
        images = splits[split]
        scores = neighbours.probabilities(vectors_of(encoder, images, task.input_shape, device))
        area = auc(images.labels, scores)
        result[split] = {
            "images": len(images),
            "auc": None if np.isnan(area) else area,
            "acc": accuracy(images.labels, scores),
        }
    return result


def table(task: ClassificationTask, foundation: Foundation, k: int, result: Mapping[str, dict]) -> str:
    """Plain text."""
    lines = [f"{task.name}: {k} nearest neighbours in the embedding of {foundation.hash}, nothing trained"]
    for split, row in result.items():
        area = "-" if row["auc"] is None else f"{row['auc']:.3f}"
        lines.append(f"  {split:5} {row['images']:6} images: AUC {area}, ACC {row['acc']:.3f}")
    return "\n".join(lines)
