"""How a network does while it trains: on its own patients, and on synthesised windows that training never draws."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from threedme_ros.model.config import ModelConfig

from .augment import PADDING
from .case import TrainingCase
from .metrics import dice_scores, mean_dice, present
from .networks import Network


def whole_volume_labels(model: Network, image: Tensor) -> Tensor:
    """Labels (D, H, W) int64 of a whole volume (D, H, W), padded at its ends to the network's stride."""
    stride = ModelConfig.STRIDE
    pad = [p for n in reversed(image.shape) for p in (0, -n % stride)]
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        labels, _ = model.predict(F.pad(image[None, None], pad, value=PADDING))
    d, h, w = image.shape
    return labels[0, :d, :h, :w]


def validate(
    model: Network, patients: Sequence[TrainingCase], windows: Sequence[tuple[Tensor, Tensor]], num_classes: int
) -> dict:
    """Mean Dice on the patients trained on and on the fixed synthesised windows; per-structure Dice of the patients.

    Only "synthetic" may choose anything.
    """
    report: dict = {"dice": {}, "structures": {}}
    for case in patients:
        predicted, truth = whole_volume_labels(model, case.image).numpy(), case.labels.numpy()
        scores = dice_scores(predicted, truth, num_classes)
        report["dice"][case.name] = mean_dice(predicted, truth, num_classes)
        report["structures"][case.name] = {int(c): round(float(scores[c]), 3) for c in present(truth, num_classes)}
    synthetic = [
        mean_dice(whole_volume_labels(model, image[0]).numpy(), labels.numpy(), num_classes)
        for image, labels in windows
    ]
    if synthetic:
        report["dice"]["synthetic"] = float(np.nanmean(synthetic))
    return report
