"""Training images synthesised from label maps, so that no contrast and no scanner is "the" appearance of an organ.

Billot et al., "SynthSeg: Segmentation of brain MRI scans of any contrast and resolution without retraining", Medical
Image Analysis 86 (2023) 102789: draw a Gaussian mixture of random mean and spread, one component a tissue, over a
deformed label map, then blur, bias and resample. Here the tissues are every structure of the source segmentation
(many more than the model learns), each split by intensity, and sub-clusters of the unlabelled body (gas, fat, soft
tissue, bone); part of the real scan's texture is kept with a random sign and gain; and besides free draws there are
plausible ones of CT phases and MR sequences (see `contrast`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .acquisition import random_acquisition
from .artefacts import random_artefact
from .augment import PADDING
from .axis_filters import apply_along, gaussian, interpolated
from .contrast import ct_contrast, enhancement_hu, free_contrast, mr_contrast, unlabelled_patches
from .draws import chance, integer, pick, uniform
from .tissues import AIR, OUTSIDE, Tissues

MODALITIES = ("ct", "mr", "free")
TEXTURE_KEPT, PARTIAL_VOLUME = 0.7, 0.6
MASKED_AIR = 0.3
"""Share of images without a unit whose air is exactly 0, which their percentiles then leave out."""


@dataclass(frozen=True)
class SynthesisConfig:
    """What is drawn. Shares go from 0 (never) to 1 (always).

    contrasts: weights of CT, MR and free draws of brightness. patches: share of synthesised images whose unlabelled
    tissue falls into patches. recontrast: share of real images in which tissues enhance anew. acquisition: strength of
    blur, slices, shading and noise, 0 for none, 1 as usual (see `random_acquisition`). coarsest_voxels: the thickest
    slices. artefacts: share of images with metal, streaks, rings, a table, ghosts and the like.
    """

    contrasts: tuple[float, float, float] = (0.35, 0.4, 0.25)
    patches: float = 0.35
    recontrast: float = 0.5
    acquisition: float = 1.0
    coarsest_voxels: float = 2.7
    artefacts: float = 0.2

    def __post_init__(self) -> None:
        object.__setattr__(self, "contrasts", tuple(float(w) for w in self.contrasts))
        if len(self.contrasts) != len(MODALITIES) or min(self.contrasts) < 0 or sum(self.contrasts) <= 0:
            raise ValueError(f"contrasts {self.contrasts}: expected three weights, for {', '.join(MODALITIES)}")
        for name in ("patches", "recontrast", "artefacts"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} {getattr(self, name)}: expected a share from 0 to 1")
        if not 0 <= self.acquisition <= 3:
            raise ValueError(f"acquisition {self.acquisition}: expected a strength from 0 to 3")
        if not 1 <= self.coarsest_voxels <= 8:
            raise ValueError(f"coarsest_voxels {self.coarsest_voxels}: expected a number from 1 to 8")


def synthesise(
    image: Tensor | None,
    tissue: Tensor,
    tissues: Tissues,
    generator: torch.Generator,
    config: SynthesisConfig = SynthesisConfig(),
) -> Tensor:
    """An image (D, H, W) in [-1, 1] for the warped ``tissue`` map (D, H, W) uint8.

    image: the real scan on the same window, whose texture is partly kept; None where there is no scan. Voxels outside
    the scan stay -1.
    """
    modality = MODALITIES[pick(config.contrasts, generator)]
    if modality == "ct":
        mean = ct_contrast(tissues, generator, image is not None)
    else:
        mean = (mr_contrast if modality == "mr" else free_contrast)(tissues, generator)
    index, shape = tissue.flatten().int(), tuple(tissue.shape)
    result = _painted(mean, index, shape)
    if chance(generator, config.patches):
        patchy, kinds = unlabelled_patches(tissues, generator)
        patch = patches(shape, kinds, generator) * (0.1 if modality == "ct" else 0.35)
        result.addcmul_(_painted(patchy.float(), index, shape), patch)
    families = int(tissues.family.max()) + 1
    roughest = 0.06 if modality == "ct" else 0.12
    spread = uniform(generator, 0.005, roughest) * torch.rand(families, generator=generator)[tissues.family]
    spread = torch.where(tissues.dark, spread * 0.3, spread)
    result.addcmul_(_painted(spread, index, shape), texture(shape, generator))
    if image is not None and chance(generator, TEXTURE_KEPT):
        detail = (image - _painted(tissues.mean, index, shape)).clamp_(-0.4, 0.4)
        gain = torch.rand(families, generator=generator)[tissues.family] * 1.2
        if modality != "ct" and chance(generator, 0.5):
            gain = -gain
        result.addcmul_(detail, _painted(gain, index, shape))
    if chance(generator, PARTIAL_VOLUME):
        sigma = uniform(generator, 0.3, 0.8)
        for axis in range(3):
            result = apply_along(result, gaussian(shape[axis], sigma), axis)
    return acquire(result, tissue, "ct" if modality == "ct" else "mr", generator, config, synthetic=True)


def real_image(
    image: Tensor,
    tissue: Tensor,
    tissues: Tissues,
    generator: torch.Generator,
    config: SynthesisConfig = SynthesisConfig(),
) -> Tensor:
    """The scan itself (D, H, W), acquired anew: now and then every tissue enhances differently than it did."""
    if chance(generator, config.recontrast):
        low, high = tissues.ct_window_hu
        shift = torch.randn(int(tissues.family.max()) + 1, generator=generator)[tissues.family]
        shift = shift * uniform(generator, 0.0, 0.1)
        if chance(generator, 0.5):
            added = enhancement_hu(tissues, generator) * uniform(generator, -0.4, 0.8)
            shift = shift + added * (2 / (high - low))
        shift = torch.where(tissues.dark, 0.0, shift)
        image = image + _painted(shift, tissue.flatten().int(), tuple(tissue.shape))
    return acquire(image, tissue, "ct", generator, config, synthetic=False)


def acquire(
    image: Tensor, tissue: Tensor, modality: str, generator: torch.Generator, config: SynthesisConfig, synthetic: bool
) -> Tensor:
    """``image`` (D, H, W) through a scanner and through `prepare`: in [-1, 1], and -1 outside the scan."""
    outside = tissue == OUTSIDE
    if chance(generator, config.artefacts):
        image = random_artefact(image, tissue, modality, generator)
    strength = config.acquisition * (1.5 if synthetic and modality == "mr" else 1.0)
    image = random_acquisition(image, generator, strength, modality, config.coarsest_voxels)
    if modality != "ct":
        ignored = tissue <= AIR if chance(generator, MASKED_AIR) else outside
        image = percentile_window(image, ignored, generator)
    return image.masked_fill_(outside, PADDING)


def percentile_window(image: Tensor, ignored: Tensor, generator: torch.Generator) -> Tensor:
    """Stretched to [-1, 1] between low and high percentiles, as the preprocess does for modalities without a unit.

    About those of `Preprocessing`: a window is a part of the volume whose percentiles count.
    """
    step = 3
    start = [integer(generator, 0, min(step, n) - 1) for n in image.shape]
    cut = tuple(slice(s, None, step) for s in start)
    values = image[cut][~ignored[cut]]
    if len(values) < 32:
        return image
    share = torch.tensor([uniform(generator, 0.0, 0.01), uniform(generator, 0.985, 0.999)])
    low, high = torch.quantile(values, share).tolist()
    if high - low < 1e-3:
        return image
    return ((image - low) * (2 / (high - low)) - 1).clamp_(-1, 1)


def texture(shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Noise (D, H, W) of about unit variance, at one to four scales."""
    total = torch.randn(shape, generator=generator)
    weight = 1.0
    for scale in (2, 4, 10):
        if not chance(generator, 0.5):
            continue
        coarse = torch.randn(*[max(2, n // scale + 1) for n in shape], generator=generator)
        share = uniform(generator, 0.5, 2.0)
        total.add_(interpolated(coarse, shape), alpha=share)
        weight += 0.35 * share**2  # trilinear interpolation keeps about a third of the variance
    return total.mul_(weight**-0.5)


def patches(shape: tuple[int, int, int], kinds: int, generator: torch.Generator) -> Tensor:
    """Patches (D, H, W) some 10 to 30 voxels wide, each of one of ``kinds`` brightnesses of about unit variance."""
    size = integer(generator, 8, 24)
    field = interpolated(torch.randn(*[max(2, n // size + 1) for n in shape], generator=generator), shape)
    brightness = torch.randn(kinds, generator=generator)
    level = field.mul_(kinds / 2).add_(kinds / 2).clamp_(0, kinds - 1).int().flatten()
    return brightness.index_select(0, level).view(shape)


def _painted(table: Tensor, index: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Every voxel's entry of ``table`` (T,); index: (D*H*W,) int32."""
    return table.index_select(0, index).view(shape)
