"""The worst and the best case of an evaluation, truth above prediction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from threedme_ros.anatomy import Anatomy
from threedme_ros.pictures.figure import FAINT, INK, dark_figure, heading, legend, save
from threedme_ros.pictures.overlay import overlay_rgb
from threedme_ros.pictures.planes import telling_voxel
from threedme_ros.volume import Volume

WIDTH_INCHES = 14.0
TOP, BOTTOM, CAPTION = 0.95, 1.2, 0.32  # inches


def draw_segmentation(
    path: Path, image: Volume, truth: Volume, predicted: Volume, anatomy: Anatomy, *, title: str, subtitle: str
) -> None:
    """Three planes, through the voxel that tells most of ``truth``. truth, predicted: uint8 on the image's grid."""
    marked, _ = truth.reoriented("RAS")
    at = telling_voxel(marked.voxels)
    rows = [(name, overlay_rgb(image, labels, anatomy, at=at)) for name, labels in
            (("ground truth", truth), ("prediction", predicted))]  # fmt: skip
    shown = [s for s in anatomy if (truth.voxels == s.id).any() or (predicted.voxels == s.id).any()]
    figure = _rows(rows, title, subtitle)
    height = figure.get_size_inches()[1]
    legend(figure, shown, (0.025, 0.3 / height), (0.95, 0.85 / height), columns=5)
    save(figure, path)


def draw_image(path: Path, image: np.ndarray, *, title: str, subtitle: str) -> None:
    """(D, H, W) uint8: its three middle slices, in the array's own axes."""
    slices = [np.take(image, n // 2, axis) for axis, n in enumerate(image.shape)]
    tall = max(s.shape[0] for s in slices)
    padded = [np.pad(s, ((0, tall - s.shape[0]), (0, 2))) for s in slices]
    save(_rows([("middle slices along the three axes", np.concatenate(padded, axis=1))], title, subtitle), path)


def _rows(rows: Sequence[tuple[str, np.ndarray]], title: str, subtitle: str):
    heights = [WIDTH_INCHES * picture.shape[0] / picture.shape[1] for _, picture in rows]
    height = TOP + BOTTOM + sum(heights) + CAPTION * len(rows)
    figure = dark_figure(WIDTH_INCHES, height)
    top = height - TOP
    for (caption, picture), tall in zip(rows, heights, strict=True):
        figure.text(0.025, top / height, caption, color=INK, fontsize=12, va="top")
        top -= CAPTION + tall
        axes = figure.add_axes((0, top / height, 1, tall / height))
        axes.imshow(picture, cmap="gray", vmin=0, vmax=255, aspect="auto", interpolation="bilinear")
        axes.set_axis_off()
    heading(figure, title, subtitle)
    footer = "Radiological convention: the patient's right is on the left" if rows[0][1].ndim == 3 else ""
    figure.text(0.975, 0.06 / height, footer, color=FAINT, fontsize=8, ha="right", va="bottom")
    return figure
