"""The picture of the ``overlay`` topic: three planes with the labels over the image, made in milliseconds."""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from threedme_ros.anatomy import Anatomy
from threedme_ros.pictures.planes import Plane, grey, grey_window, outline, resized_labels, three_planes
from threedme_ros.volume import Volume

HEIGHT = 480
MAX_ASPECT = 8
"""Width over height, at most: a body of 500 mm in a slab of 20 is 5; a row of voxels is drawn smaller instead."""
GAP = 12
LETTER_PIXELS = 20
BACKGROUND = (10, 12, 18)
LETTER = (214, 222, 235)
FILL = 0.38


def overlay_rgb(
    volume: Volume,
    labels: Volume,
    anatomy: Anatomy,
    *,
    height: int = HEIGHT,
    at: tuple[int, int, int] | None = None,
) -> np.ndarray:
    """(height, width, 3) uint8 sRGB: axial, coronal, sagittal, side by side at one scale with square millimetres.

    They fill the height, unless that would make them wider than `MAX_ASPECT` heights.

    Radiological convention: the patient's right is on the LEFT of the axial and coronal planes. The planes go through
    the labelled centroid, or the canonical voxel ``at`` = (i=R, j=A, k=S). labels: uint8 on the volume's grid.
    """
    planes = three_planes(volume, labels, at)
    window, colours = grey_window(planes), anatomy.colour_map()
    tallest_mm, together_mm = max(p.size_mm[0] for p in planes), sum(p.size_mm[1] for p in planes)
    room = height - 2 * GAP, MAX_ASPECT * height - (len(planes) + 1) * GAP
    mm_per_pixel = max(tallest_mm / room[0], together_mm / room[1])
    panels = [panel(p, window, colours, p.pixels_at(mm_per_pixel)) for p in planes]
    width = sum(p.shape[1] for p in panels) + GAP * (len(panels) + 1)
    canvas = np.empty((height, width, 3), np.uint8)
    canvas[:] = BACKGROUND
    left, corners = GAP, []
    for picture in panels:
        top = (height - picture.shape[0]) // 2
        canvas[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
        corners.append((left, top, left + picture.shape[1], top + picture.shape[0]))
        left += picture.shape[1] + GAP
    return _lettered(canvas, planes, corners)


def panel(
    plane: Plane, window: tuple[float, float], colours: np.ndarray, shape: tuple[int, int], fill: float = FILL
) -> np.ndarray:
    """(rows, columns, 3) uint8 of ``shape``: the grey image, labels filled with ``fill`` opacity and outlined."""
    grey_levels, labels = grey(plane, window, shape), resized_labels(plane.labels, shape)
    levels = np.arange(256, dtype=np.float32)[None, :, None]
    opacity = np.full((256, 1, 1), fill, np.float32)
    opacity[0] = 0
    blended = (levels + opacity * (colours[:, None].astype(np.float32) - levels)).astype(np.uint8)
    picture = blended[labels, grey_levels]
    edge = outline(labels)
    picture[edge] = colours[labels[edge]]
    return picture


@cache
def _font() -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(LETTER_PIXELS)


def _lettered(canvas: np.ndarray, planes: tuple[Plane, ...], corners: list[tuple[int, int, int, int]]) -> np.ndarray:
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    for plane, (left, top, right, bottom) in zip(planes, corners, strict=True):
        middle = ((left + right) // 2, (top + bottom) // 2)
        places = ((middle[0], top + 3, "mt"), (middle[0], bottom - 4, "mb"))
        places += ((left + 5, middle[1], "lm"), (right - 5, middle[1], "rm"))
        for letter, (x, y, anchor) in zip(plane.letters, places, strict=True):
            draw.text((x, y), letter, LETTER, _font(), anchor, stroke_width=2, stroke_fill=(0, 0, 0))
    return np.asarray(picture)
