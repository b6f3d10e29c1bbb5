"""The one preprocess: training, evaluation, CLI and robot all see a volume through `prepare`.

Array order: a volume is indexed ``[i, j, k]``; the network's arrays are ``(D, H, W)`` = (Superior, Anterior, Right),
the transpose of the volume's RAS+ view. Spacing is always written x=R, y=A, z=S, in mm.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from threedme_ros.inference.label_resampling import nearest, resample_labels
from threedme_ros.inference.planes import planes
from threedme_ros.volume import Grid, Reorientation, Volume, VolumeError, check_spacing

if TYPE_CHECKING:
    from threedme_ros.model.config import Preprocessing

MODALITIES = ("auto", "ct", "other")
PADDING_VALUE = -1.0
"""What the network sees outside the volume: air in CT, background elsewhere."""

CT_BELOW_HU = -200.0
MIN_MODEL_VOXELS_PER_AXIS, MAX_MODEL_VOXELS_PER_AXIS = 2, 4096
"""12 m at 3 mm, 2 m at 0.5: a body fits, a row of a million voxels does not."""
MAX_MODEL_VOXELS = 2**28
"""Padding included: thin volumes cost what the network sees of them."""
WINDOW_STEP = 32
"""Windows are padded up to a multiple of it, or less."""
COARSE_SPACING_MM = 10.0
TILT_WARNING_DEG = 30.0
SHEAR_WARNING_COSINE = 0.02
SLAB_VOXELS = 2**22
PERCENTILE_SAMPLES = 2**21


@dataclass(frozen=True, eq=False)
class Prepared:
    """What the network sees, and the way back.

    x: (D, H, W) float32 in [-1, 1]. grid: the Grid of ``x.T`` (RAS+, about the model's spacing).
    canonical: the full-resolution RAS+ Grid. reorientation: from the input's axes to it. modality: "ct" or "other".
    warnings: what the checkpoint was not made for, one sentence each.
    """

    x: np.ndarray
    grid: Grid
    canonical: Grid
    reorientation: Reorientation
    modality: str
    warnings: tuple[str, ...] = ()


def prepare(volume: Volume, preprocessing: Preprocessing, modality: str = "auto") -> Prepared:
    """Reorient to RAS+, clip and map intensities to [-1, 1], rescale to the model's spacing.

    Intensities are clipped *before* the rescale averages them, so that metal of 20,000 HU weighs in its neighbours no
    more than the window's upper end, and so that no full-resolution float copy exists: slabs of slices go through.

    modality: "ct" clips to ``preprocessing.ct_window_hu``; "other" to ``preprocessing.percentiles`` of the non-zero
    voxels; "auto" is "ct" if any voxel lies below -200 (fat, lung and air do in HU; MR and ultrasound do not).
    Raises VolumeError for non-finite or constant voxels, values that float32 cannot tell apart or hold, a spacing no
    scanner has, and a field of view the model's spacing cannot cover. What it returns is finite, always.
    """
    if modality not in MODALITIES:
        raise ValueError(f"modality {modality!r}: expected one of {MODALITIES}")
    canonical, reorientation = volume.reoriented("RAS")
    grid = canonical.grid.scaled(_model_shape(canonical.grid, preprocessing.spacing_mm))
    check_spacing(canonical.spacing_mm)
    lowest, highest = _finite_range(canonical.voxels)
    warnings = _grid_warnings(canonical.grid)
    if modality == "ct" and lowest >= CT_BELOW_HU:
        warnings += (f"lowest voxel {lowest:g}: a CT in HU holds air or fat below {CT_BELOW_HU:g}",)
    if modality == "auto":
        modality = "ct" if lowest < CT_BELOW_HU else "other"
    if modality == "ct":
        low, high = preprocessing.ct_window_hu
        if highest <= low or lowest >= high:
            raise VolumeError(
                f"CT voxels from {lowest:g} to {highest:g}: expected some between {low:g} and {high:g} HU"
            )
    else:
        low, high = _percentile_window(canonical.voxels, preprocessing.percentiles, lowest, highest)
    _check_window(low, high, lowest, highest)

    source = canonical.voxels.T  # [i=R, j=A, k=S] -> (D=S, H=A, W=R)
    width, height, depth = grid.shape
    x = np.empty((source.shape[0], height, width), np.float32)
    step = max(1, SLAB_VOXELS // (source.shape[1] * source.shape[2]))
    for first in range(0, len(source), step):
        slab = _normalise(source[first : first + step], low, high)
        x[first : first + step] = rescale(slab, (len(slab), height, width))
    x = rescale(x, (depth, height, width))
    np.clip(x, -1, 1, out=x)
    if not np.isfinite(x.sum()):  # of values in [-1, 1]: only one that is no number makes it none
        raise VolumeError(f"voxels from {lowest:g} to {highest:g}: expected values that stay finite in float32")
    return Prepared(x, grid, canonical.grid, reorientation, modality, warnings)


def model_voxels(volume: Volume, preprocessing: Preprocessing) -> int:
    """How many voxels `prepare` would make of ``volume``. Raises VolumeError for too many, or too few."""
    return prod(_model_shape(volume.reoriented("RAS")[0].grid, preprocessing.spacing_mm))


def rescale(x: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """(D, H, W) float32 -> ``shape``, outer voxel faces aligned: linear when growing, area-weighted when shrinking.

    The result lies on ``grid.scaled(...)`` of the source's grid. An axis whose size stays is left exactly as it is.
    """
    if x.shape[1:] != tuple(shape[1:]):
        planes = torch.from_numpy(x).unsqueeze(1)  # (D, 1, H, W)
        planes = F.interpolate(planes, size=tuple(shape[1:]), mode="bilinear", antialias=True, align_corners=False)
        x = planes.squeeze(1).numpy()
    if x.shape[0] != shape[0]:
        columns = torch.from_numpy(x).reshape(1, 1, x.shape[0], -1)  # (1, 1, D, H*W): only D changes
        columns = F.interpolate(
            columns, size=(shape[0], columns.shape[-1]), mode="bilinear", antialias=True, align_corners=False
        )
        x = columns.reshape(tuple(shape)).numpy()
    return x


def restore_labels(labels: np.ndarray, confidence: np.ndarray, prepared: Prepared) -> tuple[np.ndarray, np.ndarray]:
    """The network's (D, H, W) labels uint8 and confidence float in 0..1 -> the same on exactly the input's array.

    Returns labels (I, J, K) uint8 and confidence (I, J, K) uint8, where 255 is certain. Without a rescale the labels
    come back bit for bit; otherwise by `resample_labels`, and each voxel takes the nearest model voxel's confidence.
    """
    expected = prepared.x.shape
    if labels.shape != expected or confidence.shape != expected:
        raise ValueError(f"labels {labels.shape}, confidence {confidence.shape}: expected the prepared {expected}")
    shape = prepared.canonical.shape[::-1]
    certainty = _quantised(confidence)
    if shape != expected:
        labels = resample_labels(labels, confidence, shape)
        certainty = nearest(certainty, shape)
    invert = prepared.reorientation.invert
    return invert(labels.T), invert(certainty.T)  # (S, A, R) -> [R, A, S] -> the input's axes


def _quantised(confidence: np.ndarray) -> np.ndarray:
    """Float in 0..1 -> uint8, where 255 is 1."""
    certainty = np.empty_like(confidence, np.uint8)
    for plane, out in planes(confidence, certainty):
        out[...] = np.rint(np.clip(plane, 0, 1) * np.float32(255))
    return certainty


def _model_shape(grid: Grid, spacing_mm: tuple[float, float, float]) -> tuple[int, int, int]:
    extent = [n * s for n, s in zip(grid.shape, grid.spacing_mm, strict=True)]
    shape = [round(e / s) for e, s in zip(extent, spacing_mm, strict=True)]
    text = " x ".join(f"{e:.4g}" for e in extent)
    if min(shape) < MIN_MODEL_VOXELS_PER_AXIS:
        least = " x ".join(f"{MIN_MODEL_VOXELS_PER_AXIS * s:g}" for s in spacing_mm)
        raise VolumeError(f"field of view {text} mm (R, A, S): expected at least {least} mm; are the units mm?")
    # the in-plane pass runs first, so the larger of both depths is what has to fit
    seen = prod(-(-n // WINDOW_STEP) * WINDOW_STEP for n in (*shape[:2], max(shape[2], grid.shape[2])))
    if max(shape) > MAX_MODEL_VOXELS_PER_AXIS or seen > MAX_MODEL_VOXELS:
        raise VolumeError(
            f"field of view {text} mm (R, A, S): expected at most {MAX_MODEL_VOXELS_PER_AXIS} voxels along an axis and "
            f"{MAX_MODEL_VOXELS} in all at the model's spacing {tuple(spacing_mm)} mm; are the units mm?"
        )
    return tuple(shape)


def _grid_warnings(grid: Grid) -> tuple[str, ...]:
    axes = grid.affine[:3, :3] / np.array(grid.spacing_mm)
    tilt = np.degrees(np.arccos(np.clip(np.abs(np.diag(axes)).min(), 0, 1)))
    shear = np.abs(axes.T @ axes - np.eye(3)).max()
    warnings = []
    if max(grid.spacing_mm) > COARSE_SPACING_MM:
        spacing = ", ".join(f"{s:.3g}" for s in grid.spacing_mm)
        warnings.append(f"voxel spacing ({spacing}) mm: small structures are lost above {COARSE_SPACING_MM:g} mm")
    if tilt > TILT_WARNING_DEG:
        warnings.append(f"axes tilted {tilt:.0f} degrees from the patient's: expected at most {TILT_WARNING_DEG:g}")
    if shear > SHEAR_WARNING_COSINE:
        warnings.append(f"axes not at right angles (cosine {shear:.2f}): expected at most {SHEAR_WARNING_COSINE:g}")
    return tuple(warnings)


def _finite_range(voxels: np.ndarray) -> tuple[float, float]:
    # min and max carry any NaN or infinity through, so they are the finiteness check too
    lowest, highest = float(voxels.min()), float(voxels.max())
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        raise VolumeError(f"voxels from {lowest} to {highest}: expected finite numbers")
    if lowest == highest:
        raise VolumeError(f"every voxel is {lowest:g}: expected an image")
    return lowest, highest


def _percentile_window(
    voxels: np.ndarray, percentiles: tuple[float, float], lowest: float, highest: float
) -> tuple[float, float]:
    step = max(1, round((voxels.size / PERCENTILE_SAMPLES) ** (1 / 3)))
    sample = voxels[::step, ::step, ::step]
    sample = sample[sample != 0].astype(np.float64)
    with np.errstate(all="ignore"):  # between values near the end of float64; what is no number is refused as such
        low, high = np.percentile(sample, percentiles) if sample.size else (lowest, highest)
    # a mask or an almost empty image has no spread among its non-zero voxels
    return (float(low), float(high)) if low < high else (lowest, highest)


def _check_window(low: float, high: float, lowest: float, highest: float) -> None:
    """VolumeError unless `_normalise` maps ``low`` to ``high`` to numbers in float32."""
    with np.errstate(all="ignore"):
        ends = np.array((low, high), np.float32)
        scale = np.float32(2 / np.float64(high - low))
    if not (np.isfinite(ends).all() and ends[0] < ends[1] and np.isfinite(scale)):
        raise VolumeError(
            f"voxels from {lowest:g} to {highest:g}, mostly {low:g} to {high:g}: expected a range that float32 resolves"
        )


def _normalise(slab: np.ndarray, low: float, high: float) -> np.ndarray:
    """Any real (D, H, W) in any memory order -> a new C-contiguous float32, low..high mapped to -1..1."""
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes inf, and is clipped
        x = torch.from_numpy(np.array(slab, dtype=np.float32, order="C"))
    return x.clamp_(low, high).sub_((low + high) / 2).mul_(2 / (high - low)).numpy()
