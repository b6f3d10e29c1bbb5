"""Training images synthesised from label maps, so that no contrast and no scanner is "the" appearance of an organ.

Billot et al., "SynthSeg: Segmentation of brain MRI scans of any contrast and resolution without retraining", Medical
Image Analysis 86 (2023) 102789: draw a Gaussian mixture of random mean and spread, one component a tissue, over a
deformed label map, then blur, bias and resample. Here the tissues are every structure of the source segmentation
(many more than the model learns), each split by intensity, and sub-clusters of the unlabelled body (gas, fat, soft
tissue, bone), and part of the real scan's texture is kept with a random sign and gain.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .augment import PADDING, chance, integer, random_acquisition, smooth, uniform
from .tissues import OUTSIDE, Tissues


def draw_contrast(tissues: Tissues, generator: torch.Generator) -> tuple[Tensor, bool]:
    """A mean for every tissue, (T,), and whether it is CT-like.

    Half of the draws keep the real order of the tissues (CT in another phase or at another energy): the real means
    plus a jitter a family. The others are free, as in MR: a mean a family, families of one kind often alike.
    """
    families = int(tissues.family.max()) + 1
    per_family = torch.randn(families, generator=generator)
    inner = torch.randn(len(tissues), generator=generator)
    if chance(generator, 0.5):
        mean = tissues.mean + per_family[tissues.family] * uniform(generator, 0.03, 0.3)
        mean = mean + inner * uniform(generator, 0.0, 0.06)
        mean = torch.where(tissues.dark, tissues.mean, mean)
        return mean, True
    family_mean = torch.rand(families, generator=generator) * 1.8 - 0.9
    kind_mean = torch.rand(int(tissues.kind.max()) + 1, generator=generator) * 1.8 - 0.9
    like_kind = torch.rand(families, generator=generator) < 0.6
    mean = family_mean[tissues.family]
    alike = like_kind[tissues.family] & (tissues.kind > 0)
    mean = torch.where(alike, kind_mean[tissues.kind] + 0.08 * per_family[tissues.family], mean)
    # the two halves of a structure: mostly the real difference in either sense, sometimes none
    mean = mean + inner * uniform(generator, 0.0, 0.15)
    dark = -1 + torch.rand(len(tissues), generator=generator) * 0.25
    mean = torch.where(tissues.dark, dark, mean)
    return mean, False


def texture(shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Noise (D, H, W) of about unit variance, at one to three scales."""
    total = torch.randn(shape, generator=generator)
    weight = 1.0
    for scale in (2, 4):
        if not chance(generator, 0.5):
            continue
        coarse = torch.randn(1, 1, *[max(2, n // scale + 1) for n in shape], generator=generator)
        share = uniform(generator, 0.5, 2.0)
        total.add_(F.interpolate(coarse, size=shape, mode="trilinear", align_corners=True)[0, 0], alpha=share)
        weight += 0.35 * share**2  # trilinear interpolation keeps about a third of the variance
    return total.mul_(weight**-0.5)


def synthesise(image: Tensor, tissue: Tensor, tissues: Tissues, generator: torch.Generator) -> Tensor:
    """An image (D, H, W) in [-1, 1] for the warped ``tissue`` map (D, H, W) uint8.

    image: the real scan on the same window, whose texture is partly kept. Voxels outside the scan stay -1.
    """
    mean, is_ct = draw_contrast(tissues, generator)
    index = tissue.flatten().to(torch.int32)
    families = int(tissues.family.max()) + 1
    spread = uniform(generator, 0.005, 0.12) * torch.rand(families, generator=generator)[tissues.family]
    spread = torch.where(tissues.dark, spread * 0.3, spread)
    result = mean.index_select(0, index).view(image.shape)
    result.addcmul_(spread.index_select(0, index).view(image.shape), texture(image.shape, generator))
    if chance(generator, 0.7):
        detail = (image - tissues.mean.index_select(0, index).view(image.shape)).clamp_(-0.4, 0.4)
        gain = torch.rand(families, generator=generator)[tissues.family] * 1.2
        if not is_ct and chance(generator, 0.5):
            gain = -gain
        result.addcmul_(detail, gain.index_select(0, index).view(image.shape))
    if chance(generator, 0.6):  # partial volume at every boundary
        sigma = uniform(generator, 0.3, 0.8)
        for axis in range(3):
            result = smooth(result, sigma, axis)
    result = random_acquisition(result, generator, strength=1.0 if is_ct else 1.5)
    outside = tissue == OUTSIDE
    if not is_ct:
        result = percentile_window(result, outside, generator)
    return result.masked_fill_(outside, PADDING)


def percentile_window(image: Tensor, outside: Tensor, generator: torch.Generator) -> Tensor:
    """Stretched to [-1, 1] between low and high percentiles, as the preprocess does for modalities without a unit."""
    step = 3
    start = [integer(generator, 0, min(step, n) - 1) for n in image.shape]
    cut = tuple(slice(s, None, step) for s in start)
    values = image[cut][~outside[cut]]
    if len(values) < 32:
        return image
    low, high = torch.quantile(values, torch.tensor([0.005, 0.995])).tolist()
    if high - low < 1e-3:
        return image
    return ((image - low) * (2 / (high - low)) - 1).clamp_(-1, 1)
