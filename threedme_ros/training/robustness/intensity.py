"""Corruptions of the image that leave the anatomy where it is. Each is a pure function."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from .labelled import Labelled, hu, outside

FWHM_PER_SIGMA = 2.3548
ROD_RADIUS_MM = 3.0
ROD_HU = 3000.0
RODS_APART_MM = 50.0
ROD_DEPTH = 0.25
"""Where the rods lie between the body's back and its front."""

STREAK_REACH_MM = 120.0
STREAK_BINS = 720
STREAK_WIDTH_BINS = 3.0
STREAK_ALONG_MM = 6.0


def noise(case: Labelled, sigma_hu: float, seed: int = 0) -> Labelled:
    """White Gaussian noise of ``sigma_hu`` in every voxel."""
    added = np.random.default_rng(seed).standard_normal(case.image.shape, np.float32)
    return case.with_image(case.image.voxels + added * np.float32(sigma_hu * hu(case)))


def blur(case: Labelled, fwhm_mm: float, seed: int = 0) -> Labelled:
    """A Gaussian point spread, ``fwhm_mm`` wide at half its height, along every axis."""
    sigma = [fwhm_mm / FWHM_PER_SIGMA / s for s in case.image.spacing_mm]
    return case.with_image(ndimage.gaussian_filter(case.image.voxels.astype(np.float32), sigma, mode="nearest"))


def shift(case: Labelled, offset_hu: float, seed: int = 0) -> Labelled:
    """``offset_hu`` added everywhere, air too."""
    return case.with_image(case.image.voxels.astype(np.float32) + offset_hu * hu(case))


def gain(case: Labelled, percent: float, seed: int = 0) -> Labelled:
    """Contrast ``percent`` higher, about water in CT and about the lowest value elsewhere; air stays air."""
    about = 0.0 if case.is_ct else outside(case)
    voxels = (case.image.voxels.astype(np.float32) - about) * (1 + percent / 100) + about
    return case.with_image(np.maximum(voxels, outside(case)))


def streaks(case: Labelled, amplitude_hu: float, seed: int = 0) -> Labelled:
    """Two metal rods along the spine, and bright and dark streaks of ``amplitude_hu`` (standard deviation, at the rod)
    that fan out from them in every axial slice and fade to a third within 120 mm.
    """
    image, step = case.image.reoriented("RAS")
    body, _ = case.body.reoriented("RAS")
    voxels = image.voxels.astype(np.float32)
    unit, rng, (dx, dy, dz) = hu(case), np.random.default_rng(seed), image.spacing_mm
    where = np.argwhere(body.voxels.any(2)) if body.voxels.any() else np.array([[0, 0], np.array(image.shape[:2]) - 1])
    middle = where[:, 0].mean() * dx
    back, front = where[:, 1].min() * dy, where[:, 1].max() * dy
    y = back + ROD_DEPTH * (front - back)
    x_mm, y_mm = np.arange(image.shape[0])[:, None] * dx, np.arange(image.shape[1])[None] * dy
    metal = np.zeros(image.shape[:2], bool)
    for x in (middle - RODS_APART_MM / 2, middle + RODS_APART_MM / 2):
        angle, distance = np.arctan2(y_mm - y, x_mm - x), np.hypot(y_mm - y, x_mm - x)
        # a streak goes through the metal, so it is the same at an angle and opposite to it
        bins = (angle / np.pi * STREAK_BINS).astype(np.intp) % STREAK_BINS
        fan = rng.standard_normal((image.shape[2], STREAK_BINS))
        fan = ndimage.gaussian_filter(fan, (STREAK_ALONG_MM / dz, STREAK_WIDTH_BINS), mode=("nearest", "wrap"))
        fan = (fan / fan.std() * amplitude_hu * unit).astype(np.float32)
        fade = np.exp(-distance / STREAK_REACH_MM).astype(np.float32)
        for k, profile in enumerate(fan):
            voxels[:, :, k] += profile[bins] * fade
        metal |= distance <= ROD_RADIUS_MM
    voxels[metal] = ROD_HU * unit
    np.maximum(voxels, outside(case), out=voxels)
    return case.with_image(step.invert(voxels))
