"""Three planes of a volume as a radiologist hangs them.

Radiological convention: axial and coronal planes show the patient's right on the image's LEFT, axial has anterior up,
coronal and sagittal have superior up, and sagittal faces left (anterior on the image's left). An oblique volume is
shown along its own axes, under the letters of the closest anatomical ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from threedme_ros.volume import Volume

CT_WINDOW_HU = (-160.0, 240.0)
AIR_HU = -200.0  # below it only CT goes: fat, lung and air are negative, MR and ultrasound are not
PERCENTILES = (1.0, 99.5)


@dataclass(frozen=True, eq=False)
class Plane:
    """``image`` (rows, columns) as the volume's values, ``labels`` (rows, columns) uint8, first row at the top.

    pixel_mm: (row, column) size; letters: what lies at the top, bottom, left, right.
    """

    name: str
    image: np.ndarray
    labels: np.ndarray
    pixel_mm: tuple[float, float]
    letters: str

    @property
    def size_mm(self) -> tuple[float, float]:
        """(height, width), outer edges."""
        return self.image.shape[0] * self.pixel_mm[0], self.image.shape[1] * self.pixel_mm[1]

    def pixels_at(self, mm_per_pixel: float) -> tuple[int, int]:
        """(rows, columns) that show this plane with square pixels of ``mm_per_pixel``."""
        return tuple(max(1, round(mm / mm_per_pixel)) for mm in self.size_mm)


def three_planes(volume: Volume, labels: Volume, at: tuple[int, int, int] | None = None) -> tuple[Plane, Plane, Plane]:
    """Axial, coronal and sagittal through the canonical voxel ``at`` = (i=R, j=A, k=S); None: the labelled centroid."""
    image, _ = volume.reoriented("RAS")
    marked, _ = labels.reoriented("RAS")
    i, j, k = at if at is not None else labelled_centroid(marked.voxels)
    x, y, z = image.spacing_mm

    def cut(plane: tuple) -> tuple[np.ndarray, np.ndarray]:
        # [i, j, k] grow to Right, Anterior, Superior: reversed, Right comes first (left), Anterior or Superior on top.
        return tuple(np.ascontiguousarray(v[plane].T) for v in (image.voxels, marked.voxels))

    back = slice(None, None, -1)
    return (
        Plane("axial", *cut((back, back, k)), (y, x), "APRL"),
        Plane("coronal", *cut((back, j, back)), (z, x), "SIRL"),
        Plane("sagittal", *cut((i, back, back)), (z, y), "SIAP"),
    )


def labelled_centroid(voxels: np.ndarray) -> tuple[int, int, int]:
    """The voxel at the mean of the non-zero ones, within a fiftieth of the array, or the centre of an empty array."""
    every = [max(1, n // 48) for n in voxels.shape]
    marked = voxels[tuple(slice(step // 2, None, step) for step in every)] != 0
    if not marked.any():
        return tuple(n // 2 for n in voxels.shape)
    middle = [np.mean(where) * step + step // 2 for where, step in zip(np.nonzero(marked), every, strict=True)]
    return tuple(min(n - 1, round(float(m))) for n, m in zip(voxels.shape, middle, strict=True))


def telling_voxel(voxels: np.ndarray) -> tuple[int, int, int]:
    """For each axis the slice of (I, J, K) uint8 labels that shows most: the largest sum of sqrt(area) over structures.

    The square root keeps one large organ from outweighing several small ones.
    """
    result = []
    for axis, n in enumerate(voxels.shape):
        slices = np.moveaxis(voxels, axis, 0)
        areas = np.stack([np.bincount(s.ravel(), minlength=256) for s in slices])[:, 1:]
        score = np.sqrt(areas).sum(1)
        result.append(int(score.argmax()) if score.any() else n // 2)
    return tuple(result)


def grey_window(planes: tuple[Plane, ...]) -> tuple[float, float]:
    """The values shown as black and white: the soft-tissue window for CT, percentiles of what is not 0 otherwise."""
    values = np.concatenate([p.image.ravel() for p in planes])
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)]
    if values.size and values.min() < AIR_HU:
        return CT_WINDOW_HU
    values = values[values != 0]
    low, high = np.percentile(values, PERCENTILES) if values.size else (0.0, 1.0)
    return float(low), float(max(high, low + 1e-6))


def grey(plane: Plane, window: tuple[float, float], shape: tuple[int, int]) -> np.ndarray:
    """The plane's image as (rows, columns) uint8 of ``shape``, smoothly resized."""
    low, high = window
    levels = (np.nan_to_num(plane.image.astype(np.float32)) - low) * (255 / (high - low))
    picture = Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8))
    return np.asarray(picture.resize(shape[::-1], Image.Resampling.BICUBIC))


def resized_labels(labels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(rows, columns) uint8 labels resized without stairs: each pixel takes the label with the largest share."""
    best = np.zeros(shape, np.uint8)
    share = np.zeros(shape, np.uint8)
    scale = np.array(shape) / labels.shape
    for label in np.unique(labels):
        mask = labels == label
        spans = [np.flatnonzero(mask.any(1 - axis))[[0, -1]] for axis in (0, 1)]
        # Where this label can show, two pixels wider than it is, so that its edge fades out inside.
        top, left = (max(0, int((span[0] - 2) * s)) for span, s in zip(spans, scale, strict=True))
        bottom, right = (min(n, int((sp[1] + 3) * s) + 1) for sp, s, n in zip(spans, scale, shape, strict=True))
        box = (left / scale[1], top / scale[0], right / scale[1], bottom / scale[0])
        picture = Image.fromarray(mask.view(np.uint8) * np.uint8(255))
        here = np.asarray(picture.resize((right - left, bottom - top), Image.Resampling.BILINEAR, box))
        window = np.s_[top:bottom, left:right]
        np.copyto(best[window], label, where=here > share[window])
        np.maximum(share[window], here, out=share[window])
    return best


def outline(labels: np.ndarray) -> np.ndarray:
    """(rows, columns) bool: labelled pixels with a neighbour of another label."""
    edge = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        rows = np.moveaxis(labels, axis, 0)
        edges = np.moveaxis(edge, axis, 0)
        differ = rows[1:] != rows[:-1]
        edges[1:] |= differ
        edges[:-1] |= differ
    return edge & (labels != 0)
