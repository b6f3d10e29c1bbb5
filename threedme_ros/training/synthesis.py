"""Training images synthesised from label maps, so that no contrast and no scanner is "the" appearance of an organ.

Billot et al., "SynthSeg: Segmentation of brain MRI scans of any contrast and resolution without retraining", Medical
Image Analysis 86 (2023) 102789: draw a Gaussian mixture of random mean and spread, one component a tissue, over a
deformed label map, then blur, bias and resample. Here the tissues are every structure of the source segmentation
(many more than the model learns), each split by intensity, and sub-clusters of the unlabelled body (gas, fat, soft
tissue, bone), and part of the real scan's texture is kept with a random sign and gain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from .augment import PADDING, chance, integer, random_acquisition, smooth, uniform

OUTSIDE, AIR = 0, 1
"""Tissue ids: beyond the scan, and the air (and table) around the body."""
MAX_TISSUES = 256
HU_GAS, HU_FAT, HU_BONE = -150.0, -25.0, 160.0


@dataclass(frozen=True, eq=False)
class Tissues:
    """The table of source tissues of one case; every tensor is (T,), indexed by tissue id.

    target: the model's label. family: tissues that share one mean (a pair of kidneys, all ribs). kind: families that
    tend to look alike (0 none, then muscle, vessel, bone, bowel). dark: gas or air. mean, std: of the real image.
    """

    target: Tensor
    family: Tensor
    kind: Tensor
    dark: Tensor
    mean: Tensor
    std: Tensor

    def __len__(self) -> int:
        return len(self.target)


def find_tissues(
    image: np.ndarray,
    structures: np.ndarray,
    target: np.ndarray,
    families: dict[int, int],
    kinds: dict[int, int],
    hu_to_unit,
) -> tuple[np.ndarray, Tissues]:
    """Split a case into tissues.

    image: (D, H, W) float32 in [-1, 1]. structures: (D, H, W) uint8, the source segmentation with all its ids.
    target: (D, H, W) uint8, the model's labels. families, kinds: structure id -> see `Tissues`.
    hu_to_unit: HU -> [-1, 1]. Returns the tissue map (D, H, W) uint8 and its table.
    Raises ValueError when there are more than 255 tissues.
    """
    gas, fat, bone = (hu_to_unit(h) for h in (HU_GAS, HU_FAT, HU_BONE))
    body = body_mask(image > hu_to_unit(-120.0)) | (structures > 0)
    soft = ndimage.uniform_filter(image, 3)
    tissue = np.full(image.shape, AIR, np.uint8)
    rows = [(0, 0, 0, True), (0, 0, 0, True)]  # OUTSIDE, AIR: target, family, kind, dark
    next_family = 1 + max([0, *families.values()])

    def add(mask: np.ndarray, label: int, family: int, kind: int, dark: bool) -> None:
        if not mask.any():
            return
        if len(rows) == MAX_TISSUES:
            raise ValueError(f"more than {MAX_TISSUES} tissues in one case: expected fewer source structures")
        tissue[mask] = len(rows)
        rows.append((label, family, kind, dark))

    rest = body & (structures == 0)
    muscle_low, muscle_high = hu_to_unit(35.0), bone
    add(rest & (image < gas), 0, next_family, 0, True)
    add(rest & (image >= gas) & (image < fat), 0, next_family + 1, 0, False)
    add(rest & (image >= fat) & (soft < muscle_low), 0, next_family + 2, 0, False)
    add(rest & (image >= fat) & (soft >= muscle_low) & (image < muscle_high), 0, next_family + 3, 1, False)
    add(rest & (image >= muscle_high), 0, next_family + 4, 3, False)
    for structure in np.unique(structures[structures > 0]):
        inside = structures == structure
        for label in np.unique(target[inside]):
            mask = inside & (target == label)
            family = families.get(int(structure), next_family + 5 + int(structure))
            kind = kinds.get(int(structure), 0)
            holes = mask & (image < gas)
            if holes.sum() < 0.02 * mask.sum():
                holes[:] = False
            add(holes, int(label), family, 0, True)
            mask &= ~holes
            bright = mask & (soft > np.median(soft[mask])) if mask.sum() > 200 else np.zeros_like(mask)
            add(mask & ~bright, int(label), family, kind, False)
            add(bright, int(label), family, kind, False)
    count = np.maximum(np.bincount(tissue.ravel(), minlength=len(rows)), 1)
    mean = np.bincount(tissue.ravel(), image.ravel(), len(rows)) / count
    square = np.bincount(tissue.ravel(), image.ravel() ** 2, len(rows)) / count
    mean[OUTSIDE] = PADDING
    columns = list(zip(*rows, strict=True))
    return tissue, Tissues(
        target=torch.tensor(columns[0], dtype=torch.uint8),
        family=torch.tensor(columns[1]),
        kind=torch.tensor(columns[2]),
        dark=torch.tensor(columns[3]),
        mean=torch.tensor(mean, dtype=torch.float32),
        std=torch.tensor(np.sqrt(np.maximum(square - mean**2, 0)), dtype=torch.float32),
    )


def body_mask(dense: np.ndarray) -> np.ndarray:
    """The largest connected part of ``dense`` (D, H, W) bool, axial holes (bowel gas, lungs) filled."""
    in_plane = ndimage.generate_binary_structure(2, 1)[None]  # a thin slab has no depth to erode
    opened = ndimage.binary_opening(dense, in_plane, iterations=2)
    parts, count = ndimage.label(opened)
    if count == 0:
        return dense
    largest = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
    largest = ndimage.binary_dilation(largest, in_plane, iterations=2) & dense
    return np.stack([ndimage.binary_fill_holes(axial) for axial in largest])


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
