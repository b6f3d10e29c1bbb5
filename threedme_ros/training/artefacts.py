"""What goes wrong in a scanner: metal, cone beams, rings, truncation, a table, ghosts, uneven slices.

Every artefact takes an image (D, H, W) = (S, A, R) float32 on the scale [-1, 1] and returns it changed; nothing clips.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .axis_filters import apply_along, from_control_points, gaussian
from .draws import chance, integer, uniform
from .tissues import AIR

ANGLES = 360
METAL = 1.5
"""Above the window's upper end, so that blur and clipping leave it white."""


def random_artefact(image: Tensor, tissue: Tensor, modality: str, generator: torch.Generator) -> Tensor:
    """One or two artefacts of the ``modality`` ("ct" or "mr"). tissue: (D, H, W) uint8, see `tissues`."""
    if modality == "ct":
        kinds = (metal, cone_beam, rings, lambda x, g: table(x, tissue, g))
    else:
        kinds = (ghosts, uneven_slices, coil_falloff)
    first = integer(generator, 0, len(kinds) - 1)
    image = kinds[first](image, generator)
    if chance(generator, 0.3):
        image = kinds[(first + 1) % len(kinds)](image, generator)
    return image


def polar(shape: tuple[int, int, int], centre: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Radius in voxels and angle in [0, 2 pi) of every pixel (H, W) around ``centre`` (h, w) in voxels."""
    h = torch.arange(shape[1], dtype=torch.float32)[:, None] - centre[0]
    w = torch.arange(shape[2], dtype=torch.float32)[None, :] - centre[1]
    return torch.hypot(h, w), torch.atan2(h, w) % (2 * math.pi)


def radial_profile(points: int, size: int, smoothness: float, generator: torch.Generator) -> Tensor:
    """(size,) noise of about unit variance over a closed angle or a radius, ``smoothness`` entries wide."""
    profile = torch.randn(points, generator=generator)
    profile = from_control_points(size, points) @ profile
    if smoothness > 0.25:
        profile = gaussian(size, smoothness) @ profile
    return profile / profile.std().clamp(min=1e-3)


def metal(image: Tensor, generator: torch.Generator) -> Tensor:
    """One to three pieces of metal (a screw, a clip, a hip), each with bright and dark streaks in its slices."""
    depth, height, width = image.shape
    for _ in range(integer(generator, 1, 3)):
        centre = uniform(generator, 0.2, 0.8) * height, uniform(generator, 0.2, 0.8) * width
        length = min(depth, integer(generator, 1, max(2, depth // 2)))
        start = integer(generator, 0, depth - length)
        radius, angle = polar(image.shape, centre)
        size = uniform(generator, 0.6, 3.0)
        streak = radial_profile(integer(generator, 24, 90), ANGLES, 0.5, generator)
        streak = streak[(angle * (ANGLES / (2 * math.pi))).long().clamp_(max=ANGLES - 1)]
        streak *= uniform(generator, 0.1, 0.5) / (1 + radius / uniform(generator, 4.0, 15.0))
        slices = image[start : start + length] + streak
        slices[:, radius < size] = METAL
        image = torch.cat([image[:start], slices, image[start + length :]])
    return image


def cone_beam(image: Tensor, generator: torch.Generator) -> Tensor:
    """Scatter and few views: a cupped, greyer image with fine streaks across it, and noise that is not white."""
    _, height, width = image.shape
    middle = (height - 1) / 2, (width - 1) / 2
    radius, _ = polar(image.shape, middle)
    cup = (radius / radius.max()).square_()
    image = image * uniform(generator, 0.6, 1.0) + cup * uniform(generator, -0.3, 0.3) + uniform(generator, -0.2, 0.1)
    views = integer(generator, 6, 30)
    amplitude = uniform(generator, 0.01, 0.08)
    h = torch.arange(height, dtype=torch.float32)[:, None] - middle[0]
    w = torch.arange(width, dtype=torch.float32)[None, :] - middle[1]
    streaks = torch.zeros(height, width)
    size = math.ceil(math.hypot(height, width)) + 2
    for view in range(views):
        turn = math.pi * (view + uniform(generator, 0, 0.5)) / views
        at = (h * math.cos(turn) + w * math.sin(turn) + size / 2).long()
        streaks += radial_profile(size // 2, size, 0.0, generator)[at]
    return image + streaks * (amplitude / math.sqrt(views) * 2)


def rings(image: Tensor, generator: torch.Generator) -> Tensor:
    """Rings around the scanner's axis, from detector pixels that are off; in all slices, or in a part of them."""
    depth, height, width = image.shape
    centre = height * uniform(generator, 0.4, 0.6), width * uniform(generator, 0.4, 0.6)
    radius, _ = polar(image.shape, centre)
    size = int(radius.max()) + 2
    profile = radial_profile(size, size, 0.0, generator)
    if chance(generator, 0.5):  # single rings
        profile *= (torch.rand(size, generator=generator) < 0.2) * 1.5
    ring = profile[radius.long()] * uniform(generator, 0.02, 0.15)
    if chance(generator, 0.5):
        return image + ring
    strength = from_control_points(depth, 3) @ torch.rand(3, generator=generator)
    return image + ring * strength[:, None, None]


def table(image: Tensor, tissue: Tensor, generator: torch.Generator) -> Tensor:
    """A table (two thin sheets) behind the body, flat or curved, and now and then a cable beside it; only in air."""
    _, height, width = image.shape
    body = (tissue > AIR).any(0).any(1).nonzero()  # rows of H = A: behind is below
    behind = int(body.min()) if len(body) else height // 3
    w = torch.linspace(-1, 1, width)
    curve = w.square() * uniform(generator, 0.0, 0.25) * height
    h = torch.arange(height, dtype=torch.float32)[:, None]
    top = behind - uniform(generator, 0.5, 3.0) + curve
    thickness = uniform(generator, 3.0, 10.0)
    upper, lower = (h - top).abs() < 0.6, (h - (top - thickness)).abs() < 0.8
    core = (h < top) & (h > top - thickness)
    brightness = uniform(generator, -0.6, 0.4)
    sheet = torch.full((height, width), -1.0)
    sheet[core] = uniform(generator, -1.0, -0.6)
    sheet[upper | lower] = brightness
    if chance(generator, 0.3):
        radius, _ = polar(image.shape, (uniform(generator, 0, height), uniform(generator, 0, width)))
        sheet[radius < uniform(generator, 0.6, 2.0)] = uniform(generator, -0.5, 1.0)
    sheet[:, w.abs() > uniform(generator, 0.6, 1.2)] = -1.0
    return torch.where(tissue == AIR, torch.maximum(image, sheet), image)


def ghosts(image: Tensor, generator: torch.Generator) -> Tensor:
    """Breathing along the phase direction: faint copies of the body, shifted by a fraction of the field of view."""
    axis = 1 if chance(generator, 0.6) else 2
    strength, copies = uniform(generator, 0.03, 0.2), integer(generator, 2, 5)
    ghost = torch.roll(image, image.shape[axis] // copies, axis)
    if copies > 2:
        ghost = (ghost + torch.roll(image, -(image.shape[axis] // copies), axis)) * 0.5
    return image + (ghost + 1) * strength


def uneven_slices(image: Tensor, generator: torch.Generator) -> Tensor:
    """Slices of different brightness, every other one (interleaved) or each by itself."""
    depth = image.shape[0]
    if chance(generator, 0.5):
        gain = 1 + uniform(generator, 0.02, 0.2) * (torch.arange(depth) % 2)
    else:
        gain = torch.randn(depth, generator=generator).mul_(uniform(generator, 0.02, 0.1)).exp_()
    return (image + 1) * gain[:, None, None] - 1


def coil_falloff(image: Tensor, generator: torch.Generator) -> Tensor:
    """A surface coil: brightness that falls off from one side, steeply."""
    axis = integer(generator, 0, 2)
    n = image.shape[axis]
    fall = torch.linspace(0, uniform(generator, 0.3, 1.5), n).neg_().exp_()
    if chance(generator, 0.5):
        fall = fall.flip(0)
    return apply_along(image + 1, torch.diag(fall), axis) - 1
