"""What pretraining minimises, and how good a reconstruction is: on hidden voxels of the scan only."""

from __future__ import annotations

import torch
from torch import Tensor

from threedme_ros.model.reconstruction import enlarge

LOSSES = ("l1", "l2")
BLOCK_VARIANCE_FLOOR = 1e-4
"""Added to a token's variance: intensities in [-1, 1], so air with noise of 0.01 is not blown up to an image."""


def token_statistics(image: Tensor, token_size: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every token, repeated over its voxels. (B, C, D, H, W) -> two of that shape."""
    b, c, d, h, w = image.shape
    t = token_size
    tokens = image.reshape(b, c, d // t, t, h // t, t, w // t, t)
    variance, mean = torch.var_mean(tokens, dim=(3, 5, 7), correction=0, keepdim=True)
    deviation = (variance + BLOCK_VARIANCE_FLOOR).sqrt()
    return tuple(s.expand_as(tokens).reshape(image.shape) for s in (mean, deviation))


def reconstruction_loss(
    prediction: Tensor, image: Tensor, inside: Tensor, mask: Tensor, token_size: int, kind: str, normalise: bool
) -> Tensor:
    """A scalar: the mean over samples of each sample's mean error over its hidden voxels that belong to the scan.

    prediction, image: (B, C, D, H, W); inside: (B, 1, D, H, W) bool; mask: (B, d, h, w) bool. kind: "l1" or "l2".
    normalise: the target is each token less its mean, over its deviation (He et al. 2022, "normalised pixels"): texture
    and edges count as much in soft tissue as in bone. A sample with no hidden scan voxel counts as 0. A mean of
    samples' means makes the gradient of a batch the mean of its parts' gradients, however a step is split.
    """
    target, prediction = image.float(), prediction.float()
    if normalise:
        mean, deviation = token_statistics(target, token_size)
        target = (target - mean) / deviation
    error = prediction - target
    error = error.abs() if kind == "l1" else error.square()
    counted = hidden_scan(inside, mask, token_size)
    total = (error.mean(1, keepdim=True) * counted).sum((1, 2, 3, 4))
    return (total / counted.sum((1, 2, 3, 4)).clamp(min=1)).mean()


def hidden_scan(inside: Tensor, mask: Tensor, token_size: int) -> Tensor:
    """(B, 1, D, H, W) bool: hidden, and within the scan."""
    return enlarge(mask, token_size) & inside


def to_intensity(prediction: Tensor, image: Tensor, token_size: int, normalised: bool) -> Tensor:
    """As intensities. A normalised prediction borrows each token's true mean and deviation, as MAE's figures do."""
    if not normalised:
        return prediction.float()
    mean, deviation = token_statistics(image.float(), token_size)
    return prediction.float() * deviation + mean


def detail_correlation(prediction: Tensor, image: Tensor, inside: Tensor, mask: Tensor, token_size: int) -> float:
    """Pearson's correlation of prediction and truth within each hidden token, averaged over tokens with structure.

    It ignores each token's mean and contrast, so it compares networks trained with and without normalised targets. A
    token counts if all of it is scan and its deviation is above that of noise (the floor). NaN if none does.
    """
    true_mean, true_deviation = token_statistics(image.float(), token_size)
    mean, deviation = token_statistics(prediction.float(), token_size)
    product = (image.float() - true_mean) * (prediction.float() - mean) / (true_deviation * deviation)
    correlation, _ = token_statistics(product, token_size)
    whole, _ = token_statistics(inside.float(), token_size)
    structured = true_deviation.square() > 4 * BLOCK_VARIANCE_FLOOR
    counted = enlarge(mask, token_size) & (whole > 0.999) & structured
    return float(correlation[counted.expand_as(correlation)].mean())
