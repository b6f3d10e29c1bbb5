"""What a network is shown: a picture of training windows, each with its labels beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from threedme_ros.anatomy import Anatomy

from .augment import PADDING

COLUMNS, TILE_INCHES = 6, 2.6
TOP, BOTTOM, CAPTION = 0.95, 1.0, 0.28  # inches
OPACITY = 0.4


def draw_windows(
    path: Path,
    windows: Sequence[tuple[Tensor, Tensor]],
    anatomy: Anatomy,
    captions: Sequence[str],
    *,
    title: str,
    subtitle: str,
) -> None:
    """A tile a window: its most labelled axial and coronal slices, plain and with labels, without the padding.

    windows: (image (1, D, H, W) float32 in [-1, 1], labels (D, H, W) uint8); captions: one each.
    """
    from threedme_ros.pictures.figure import FAINT, dark_figure, heading, legend, save

    rows = -(-len(windows) // COLUMNS)
    width, height = COLUMNS * TILE_INCHES, rows * (TILE_INCHES + CAPTION) + TOP + BOTTOM
    figure = dark_figure(width, height)
    for number, ((image, labels), caption) in enumerate(zip(windows, captions, strict=True)):
        row, column = divmod(number, COLUMNS)
        low = height - TOP - (row + 1) * (TILE_INCHES + CAPTION)
        axes = figure.add_axes(((column + 0.02) / COLUMNS, low / height, 0.96 / COLUMNS, TILE_INCHES / height))
        axes.imshow(window_tile(image[0], labels, anatomy), interpolation="nearest")
        axes.set_axis_off()
        shape = " x ".join(str(n) for n in labels.shape)
        left, top = (column + 0.03) / COLUMNS, (low + TILE_INCHES + 0.05) / height
        figure.text(left, top, f"{caption}: {shape}", color=FAINT, fontsize=8.5, va="bottom")
    seen = {label for _, labels in windows for label in labels.unique().tolist()}
    heading(figure, title, subtitle)
    legend(figure, [s for s in anatomy if s.id in seen], (0.025, 0.25 / height), (0.95, 0.6 / height))
    footer = "Radiological convention: the patient's right is on the left. Axial above coronal, without the padding."
    figure.text(0.35 / width, 0.08 / height, footer, color=FAINT, fontsize=8.5, va="bottom")
    save(figure, path)


def window_tile(image: Tensor, labels: Tensor, anatomy: Anatomy) -> np.ndarray:
    """(rows, columns, 3) uint8 of a window (D, H, W): axial above coronal, plain left and with labels right.

    Square, the slices in its middle; seen as a radiologist does, front up in the axial and head up in the coronal one.
    """
    seen = (image > PADDING) | (labels > 0)
    box = tuple(_extent(seen.any(dim=others)) for others in ((1, 2), (0, 2), (0, 1)))  # any over two axes
    pixels, classes = image[box].numpy(), labels[box].numpy()
    marked = classes > 0
    axial, coronal = int(marked.sum((1, 2)).argmax()), int(marked.sum((0, 2)).argmax())
    parts = [
        _coloured(pixels[cut], classes[cut], anatomy)[::-1, ::-1]  # rows from S or A down, columns from R to L
        for cut in ((axial, slice(None)), (slice(None), coronal))
    ]
    tile = np.concatenate(parts, 0)
    tile = np.concatenate([tile[..., 0], tile[..., 1]], 1)
    size = max(tile.shape[:2])
    square = np.zeros((size, size, 3), np.uint8)
    top, left = ((size - n) // 2 for n in tile.shape[:2])
    square[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return square


def _extent(line: Tensor) -> slice:
    where = line.nonzero().flatten()
    return slice(int(where[0]), int(where[-1]) + 1) if len(where) else slice(0, len(line))


def _coloured(pixels: np.ndarray, classes: np.ndarray, anatomy: Anatomy) -> np.ndarray:
    """(rows, columns) -> (rows, columns, 3, 2) uint8: grey, and grey with the labels' colours over it."""
    grey = np.repeat(((pixels + 1) * 127.5).clip(0, 255)[..., None], 3, axis=-1)
    palette = np.zeros((256, 3))
    for structure in anatomy:
        palette[structure.id] = structure.colour
    mixed = np.where(classes[..., None] > 0, (1 - OPACITY) * grey + OPACITY * palette[classes], grey)
    return np.stack([grey, mixed], -1).astype(np.uint8)
