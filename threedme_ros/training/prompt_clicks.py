"""Clicks as a user would make them: somewhere inside a structure, then in the middle of the largest mistake.

After Sofiiuk et al., "Reviving Iterative Training with Mask Guidance" (ICIP 2022): the next click is the point of the
wrong region that is farthest from its boundary. Positions are array indices in the array's own axis order.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

Index = tuple[int, int, int]


def depth_mm(mask: np.ndarray, spacing_mm: tuple[float, float, float]) -> tuple[np.ndarray, Index]:
    """Distance of each voxel of ``mask`` to the nearest voxel outside it, in mm, on the mask's bounding box.

    spacing_mm in the mask's axis order. The edge of the array counts as outside. Returns the distances and the index of
    the box's first voxel; ValueError for an empty mask.
    """
    box = ndimage.find_objects(mask.astype(np.uint8))
    if not box:
        raise ValueError(f"empty mask of shape {mask.shape}: expected a structure to click on")
    distance = ndimage.distance_transform_edt(np.pad(mask[box[0]], 1), spacing_mm)[1:-1, 1:-1, 1:-1]
    return distance, tuple(s.start for s in box[0])


def deepest(mask: np.ndarray, spacing_mm: tuple[float, float, float]) -> Index:
    """The voxel farthest from the boundary; the first in array order of equals."""
    distance, start = depth_mm(mask, spacing_mm)
    at = np.unravel_index(int(np.argmax(distance)), distance.shape)
    return tuple(int(a) + s for a, s in zip(at, start, strict=True))


def random_inside(mask: np.ndarray, spacing_mm: tuple[float, float, float], generator: torch.Generator) -> Index:
    """A random voxel of ``mask`` that is at least a random share of its greatest depth below the surface."""
    distance, start = depth_mm(mask, spacing_mm)
    share = torch.rand((), generator=generator).item()
    candidates = np.argwhere((distance > 0) & (distance >= share * distance.max()))
    at = candidates[int(torch.randint(len(candidates), (), generator=generator))]
    return tuple(int(a) + s for a, s in zip(at, start, strict=True))


def correction(
    predicted: np.ndarray, truth: np.ndarray, spacing_mm: tuple[float, float, float]
) -> tuple[Index, bool] | None:
    """Where to click next, and whether that is foreground: the deepest point of what is missed or too much.

    None if nothing is wrong.
    """
    found: tuple[float, Index, bool] | None = None
    for wrong, foreground in ((truth & ~predicted, True), (predicted & ~truth, False)):
        if wrong.any():
            distance, start = depth_mm(wrong, spacing_mm)
            at = np.unravel_index(int(np.argmax(distance)), distance.shape)
            if found is None or distance[at] > found[0]:
                index = tuple(int(a) + s for a, s in zip(at, start, strict=True))
                found = (float(distance[at]), index, foreground)
    return None if found is None else found[1:]
