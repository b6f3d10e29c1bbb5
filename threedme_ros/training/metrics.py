"""How good a segmentation is, per structure: Dice, and the distance of the surfaces in mm."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def dice_scores(predicted: np.ndarray, truth: np.ndarray, num_classes: int) -> np.ndarray:
    """Dice of each class 0..num_classes-1, (num_classes,) float64, for two integer label arrays of one shape.

    NaN where a class is in neither; 0 where only one of the two has it (so a structure that is predicted but absent
    from the truth scores 0: leave it out of a mean with `present`, never by dropping what is bad).
    """
    predicted, truth = np.asarray(predicted), np.asarray(truth)
    if predicted.shape != truth.shape:
        raise ValueError(f"prediction of shape {predicted.shape}, truth of shape {truth.shape}: expected the same")
    highest = max(int(predicted.max(initial=0)), int(truth.max(initial=0)))
    if highest >= num_classes:
        raise ValueError(f"label {highest}: expected 0 to {num_classes - 1}")
    p, t = predicted.ravel(), truth.ravel()
    sizes = np.bincount(p, minlength=num_classes) + np.bincount(t, minlength=num_classes)
    overlap = np.bincount(p[p == t], minlength=num_classes)
    with np.errstate(invalid="ignore"):
        return 2 * overlap / sizes


def present(truth: np.ndarray, num_classes: int) -> np.ndarray:
    """Foreground classes that ``truth`` shows, ids in order."""
    return np.flatnonzero(np.bincount(np.asarray(truth).ravel(), minlength=num_classes)[1:]) + 1


def mean_dice(predicted: np.ndarray, truth: np.ndarray, num_classes: int) -> float:
    """Mean Dice over the foreground classes that ``truth`` shows; NaN if it shows none."""
    classes = present(truth, num_classes)
    return float(dice_scores(predicted, truth, num_classes)[classes].mean()) if len(classes) else float("nan")


def surface_distances(
    predicted: np.ndarray, truth: np.ndarray, spacing_mm: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Distances in mm from each boundary voxel of ``predicted`` to the boundary of ``truth``, and back.

    Both are bool arrays of one shape, ``spacing_mm`` is in the order of their axes. Empty if either is empty.
    """
    if not predicted.any() or not truth.any():
        return np.zeros(0), np.zeros(0)
    box = ndimage.find_objects((predicted | truth).astype(np.uint8))[0]
    edges = []
    for mask in (predicted[box], truth[box]):
        padded = np.pad(mask, 1)
        edges.append((padded & ~ndimage.binary_erosion(padded))[(slice(1, -1),) * mask.ndim])
    to_truth, to_predicted = (ndimage.distance_transform_edt(~edge, sampling=spacing_mm) for edge in edges[::-1])
    return to_truth[edges[0]], to_predicted[edges[1]]


def hausdorff95_mm(predicted: np.ndarray, truth: np.ndarray, spacing_mm: tuple[float, ...]) -> float:
    """The larger of the two directed 95th percentiles of the surface distances, mm; NaN if either mask is empty."""
    there, back = surface_distances(predicted, truth, spacing_mm)
    return max(float(np.percentile(d, 95)) for d in (there, back)) if len(there) else float("nan")


def normalised_surface_dice(
    predicted: np.ndarray, truth: np.ndarray, spacing_mm: tuple[float, ...], tolerance_mm: float
) -> float:
    """Share of both boundaries that lies within ``tolerance_mm`` of the other (counted in boundary voxels).

    NaN if both masks are empty, 0 if one is.
    """
    if not predicted.any() and not truth.any():
        return float("nan")
    there, back = surface_distances(predicted, truth, spacing_mm)
    if not len(there):
        return 0.0
    return float(((there <= tolerance_mm).sum() + (back <= tolerance_mm).sum()) / (len(there) + len(back)))
