"""How a scan is taken: resolution, slice thickness, sharpness, shading, contrast and noise.

Images are (D, H, W) = (S, A, R) float32 in [-1, 1] of one scan; nothing here knows of labels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .axis_filters import apply_along, between_slices, gaussian, interpolated, slices
from .draws import chance, integer, uniform

COARSEST_VOXELS = 2.7
"""Thickest slices, in voxels of the model's grid: 8 mm where that is 3 mm."""
LOW_DOSE, RICIAN = 0.25, 0.5
"""Shares of noisy images: with the noise of a low dose in CT, and of a magnitude image elsewhere."""


def random_acquisition(
    image: Tensor,
    generator: torch.Generator,
    strength: float = 1.0,
    modality: str = "ct",
    coarsest: float = COARSEST_VOXELS,
) -> Tensor:
    """``image`` as another scanner would show it, clipped to [-1, 1].

    strength scales how often and how far (0 never; 1 for real images, about 1.5 for synthesised ones). modality: "ct"
    or "mr", which differ in shading and noise. coarsest: the thickest slices in voxels.
    """
    often = min(0.3 * strength, 0.9)
    image = random_resolution(image, generator, often, coarsest)
    if chance(generator, 0.5 * often):
        image = sharpened(image, uniform(generator, 0.5, 2.0), uniform(generator, 0.6, 1.5))
    if chance(generator, often * (1.5 if modality == "mr" else 0.7)):
        image = shaded(image, uniform(generator, 0.05, 0.25) * strength, generator)
    if strength and chance(generator, 0.6):
        gain = 1 + uniform(generator, -0.25, 0.25) * strength
        image = image * gain + uniform(generator, -0.15, 0.15) * strength
    image = image.clamp(-1, 1)
    if chance(generator, often):
        gamma = math.exp(uniform(generator, -0.4, 0.4) * strength)
        image = image.add_(1).mul_(0.5).pow_(gamma).mul_(2).sub_(1)
    if strength and chance(generator, 0.5):
        level = uniform(generator, 0.0, 0.12) * strength
        image = noisy(image, level, modality, generator)
    return image.clamp_(-1, 1)


def random_resolution(image: Tensor, generator: torch.Generator, often: float, coarsest: float) -> Tensor:
    """Blurred along each axis by itself, and sometimes in slices up to ``coarsest`` voxels thick, mostly axial ones.

    All that happens along one axis is one matrix (see `axis_filters`).
    """
    filters: list[Tensor | None] = [None, None, None]
    if chance(generator, often):
        alike = chance(generator, 0.5)
        sigma = uniform(generator, 0.3, 1.1)
        for axis in range(3):
            filters[axis] = gaussian(image.shape[axis], sigma if alike else uniform(generator, 0.2, 1.3))
    if coarsest > 1 and chance(generator, often):
        style = integer(generator, 0, 9)  # axial slices, mostly, or another plane's, or all three
        axes = range(3) if style == 9 else [0 if style < 7 else integer(generator, 1, 2)]
        spacing = math.exp(uniform(generator, 0, math.log(coarsest)))
        nearest = chance(generator, 0.25)
        for axis in axes:
            thick = thick_slices(image.shape[axis], spacing, uniform(generator, 0.6, 1.3), nearest)
            filters[axis] = thick if filters[axis] is None else thick @ filters[axis]
    for axis, matrix in enumerate(filters):
        if matrix is not None:
            image = apply_along(image, matrix, axis)
    return image


def thick_slices(n: int, spacing: float, thickness: float = 1.0, nearest: bool = False) -> Tensor:
    """(n, n) filter: slices every ``spacing`` voxels, and back to n voxels linearly (or from the nearest slice).

    thickness: of a slice in spacings; below 1 there are gaps, above 1 the slices overlap.
    """
    taken = slices(n, spacing, thickness)
    return between_slices(n, len(taken), nearest) @ taken


def sharpened(image: Tensor, sigma: float, amount: float) -> Tensor:
    """Edge-enhanced, as by a hard reconstruction kernel: the image plus ``amount`` times what a blur would take."""
    blurred = image
    for axis in range(3):
        blurred = apply_along(blurred, gaussian(image.shape[axis], sigma), axis)
    return torch.lerp(blurred, image, 1 + amount)


def random_field(shape: tuple[int, int, int], control: int, generator: torch.Generator) -> Tensor:
    """Smooth noise (D, H, W) of unit variance at its control points, at most ``control`` of them along each axis."""
    points = [min(control, max(2, n // 8)) for n in shape]
    return interpolated(torch.randn(*points, generator=generator), shape)


def shaded(image: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """A smooth gain, whose logarithm has the standard deviation ``amount``: a coil's bias field, or scatter."""
    gain = random_field(tuple(image.shape), integer(generator, 2, 5), generator).mul_(amount).exp_()
    return (image + 1).mul_(gain).sub_(1)


def noisy(image: Tensor, level: float, modality: str, generator: torch.Generator) -> Tensor:
    """With noise of standard deviation ``level``: white, correlated, of a low dose (CT), or Rician (MR)."""
    shape = tuple(image.shape)
    noise = torch.randn(shape, generator=generator)
    if modality == "mr" and chance(generator, RICIAN):
        signal = noise.mul_(level).add_(image + 1)
        other = torch.randn(shape, generator=generator).mul_(level)
        return torch.hypot(signal, other).sub_(1)
    if modality == "ct" and chance(generator, LOW_DOSE):
        # few photons come through along the body's width: streaks from side to side, worse in some slices
        noise = correlated(noise, (0.0, uniform(generator, 0.2, 0.6), uniform(generator, 1.0, 4.0)))
        noise.mul_(0.7 + torch.rand(shape[0], 1, 1, generator=generator))
    elif chance(generator, 0.4):
        noise = correlated(noise, tuple(uniform(generator, 0.0, 1.0) for _ in range(3)))
    return noise.mul_(level).add_(image)


def correlated(noise: Tensor, sigmas: tuple[float, float, float]) -> Tensor:
    """White ``noise`` (D, H, W) blurred by ``sigmas`` voxels, brought back to unit variance away from the borders."""
    for axis, sigma in enumerate(sigmas):
        if sigma > 0.25:
            matrix = gaussian(noise.shape[axis], sigma)
            middle = matrix[len(matrix) // 2]
            noise = apply_along(noise, matrix / middle.square().sum().sqrt(), axis)
    return noise
