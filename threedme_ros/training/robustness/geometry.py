"""Corruptions of where and how the body was sampled: the truth moves with the image. Each is a pure function."""

from __future__ import annotations

import numpy as np

from threedme_ros.inference.label_resampling import resample_labels
from threedme_ros.volume import Volume, resample

from .labelled import Labelled, as_type, outside

R, A, S = range(3)


def slice_thickness(case: Labelled, thickness_mm: float, seed: int = 0) -> Labelled:
    """Slices ``thickness_mm`` thick along the axis closest to S, each the mean of what it covers; at least one.

    A scan whose slices are as thick already stays as it is.
    """
    image, _ = case.image.reoriented("RAS")
    depth = image.shape[S] * image.spacing_mm[S]
    return _resampled(case, (*image.shape[:2], min(image.shape[S], max(1, round(depth / thickness_mm)))))


def spacing(case: Labelled, factor: float, seed: int = 0) -> Labelled:
    """Voxels ``factor`` times as long along every axis, each the mean of what it covers."""
    image, _ = case.image.reoriented("RAS")
    return _resampled(case, tuple(max(1, round(n / factor)) for n in image.shape))


def _resampled(case: Labelled, shape: tuple[int, int, int]) -> Labelled:
    image, _ = case.image.reoriented("RAS")
    truth, _ = case.truth.reoriented("RAS")
    body, _ = case.body.reoriented("RAS")
    grid = image.grid.scaled(shape)
    voxels = image.voxels.astype(np.float32)
    for axis, n in enumerate(shape):
        voxels = box_means(voxels, axis, n)
    return Labelled(
        Volume(as_type(voxels, case.image.voxels.dtype), grid.affine, image.frame_id),
        Volume(_voted(truth.voxels, shape), grid.affine),
        Volume(_voted(body.voxels.view(np.uint8), shape) > 0, grid.affine),
    )


def _voted(labels: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """(I, J, K) uint8 -> ``shape``: where a new centre lies between voxels, their majority."""
    return resample_labels(labels.T, np.ones(labels.shape[::-1], np.float32), shape[::-1]).T


def box_means(array: np.ndarray, axis: int, n: int) -> np.ndarray:
    """``array`` in ``n`` equal boxes along ``axis``: the mean of each, voxels cut by a face counting in part."""
    if n == array.shape[axis]:
        return array
    array = np.moveaxis(array, axis, 0)
    below = np.concatenate([np.zeros_like(array[:1], np.float64), np.cumsum(array, 0, np.float64)])
    faces = np.linspace(0, len(array), n + 1)
    lower = np.minimum(faces.astype(np.intp), len(array) - 1)
    part = (faces - lower)[(slice(None), *[None] * (array.ndim - 1))]
    at_faces = below[lower] * (1 - part) + below[lower + 1] * part
    return np.moveaxis(np.diff(at_faces, axis=0) * (n / len(array)), 0, axis).astype(np.float32)


def truncation(case: Labelled, percent: float, seed: int = 0) -> Labelled:
    """A cone-beam's cylinder along S about the body's middle that misses ``percent`` of the body: air outside it."""
    body, step = case.body.reoriented("RAS")
    dx, dy, _ = body.spacing_mm
    column = body.voxels.sum(2)  # (R, A): how much of the body each ray along S holds
    if not column.any():
        return case
    x, y = np.arange(body.shape[0]) * dx, np.arange(body.shape[1]) * dy
    total = column.sum()
    middle = (column.sum(1) @ x) / total, (column.sum(0) @ y) / total
    radius = np.hypot(x[:, None] - middle[0], y[None] - middle[1])
    order = np.argsort(radius, axis=None)
    inside = np.cumsum(column.ravel()[order]) <= (1 - percent / 100) * total
    limit = radius.ravel()[order][max(0, np.count_nonzero(inside) - 1)]
    seen = np.broadcast_to((radius <= limit)[:, :, None], body.shape)
    return _masked(case, step.invert(seen))


def _masked(case: Labelled, seen: np.ndarray) -> Labelled:
    return Labelled(
        case.image.with_voxels(np.where(seen, case.image.voxels, case.image.voxels.min())),
        case.truth.with_voxels(np.where(seen, case.truth.voxels, np.uint8(0))),
        case.body.with_voxels(case.body.voxels & seen),
    )


def slab(case: Labelled, thickness_mm: float, seed: int = 0) -> Labelled:
    """Only the middle ``thickness_mm`` of the scan along the axis closest to S; at least one slice, at most all."""
    image, _ = case.image.reoriented("RAS")
    n = min(image.shape[S], max(1, round(thickness_mm / image.spacing_mm[S])))
    first = (image.shape[S] - n) // 2
    affine = image.affine.copy()
    affine[:3, 3] = image.grid.to_mm(np.array([[0, 0, first]]))[0]
    parts = (v.reoriented("RAS")[0] for v in (case.image, case.truth, case.body))
    return Labelled(*(Volume(p.voxels[:, :, first : first + n], affine, p.frame_id) for p in parts))


def roll(case: Labelled, degrees: float, seed: int = 0) -> Labelled:
    """The patient turned about the S axis through the middle of the scan, whose grid stays."""
    return _rotated(case, degrees, R, A)


def tilt(case: Labelled, degrees: float, seed: int = 0) -> Labelled:
    """The patient turned about the R axis (head down) through the middle of the scan, whose grid stays."""
    return _rotated(case, degrees, A, S)


def _rotated(case: Labelled, degrees: float, first: int, second: int) -> Labelled:
    """From the world axis ``first`` towards ``second``, about the scan's middle; what comes from outside is air."""
    grid = case.image.grid
    middle = grid.to_mm((np.array([grid.shape]) - 1) / 2)[0]
    turn, there, back = np.eye(4), np.eye(4), np.eye(4)
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn[first, first] = turn[second, second] = cosine
    turn[second, first], turn[first, second] = sine, -sine
    back[:3, 3], there[:3, 3] = middle, -middle
    affine = back @ turn @ there @ grid.affine
    image = Volume(case.image.voxels.astype(np.float32), affine)
    moved = resample(image, grid, order=1, fill=outside(case)).voxels
    truth = resample(Volume(case.truth.voxels, affine), grid, order=0, fill=0).voxels
    body = resample(Volume(case.body.voxels.view(np.uint8), affine), grid, order=0, fill=0).voxels > 0
    return Labelled(
        case.image.with_voxels(as_type(moved, case.image.voxels.dtype)),
        case.truth.with_voxels(truth),
        case.body.with_voxels(body),
    )


def storage_order(case: Labelled, codes: str, seed: int = 0) -> Labelled:
    """The same voxels at the same places, with the array's axes in the order and directions of ``codes``."""
    return Labelled(*(v.reoriented(codes)[0] for v in (case.image, case.truth, case.body)))
