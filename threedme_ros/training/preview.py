"""The picture of a pretraining run: one window, what each stage of the schedule hides of it, and what comes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from threedme_ros.model.reconstruction import MaskedAutoencoder, enlarge

from .crops import Crop
from .masking import Masking
from .pretrain_exam import fixed_crops, reconstruct
from .pretrain_task import PretrainTask
from .reconstruction import hidden_scan
from .volume_cache import CachedVolume

STAGES = (0.0, 0.25, 0.5, 0.75, 1.0)
TRIED_WINDOWS = 12
BACKGROUND, TEXT, FAINT, HIDDEN, EDGE = "#0e1116", "#e8eaed", "#8b949e", "#1f4e5f", "#f2b134"
COLUMNS = ("the scan", "what the network sees", "what it restores")
LABEL_WIDTH, PANEL_INCHES, HEAD_INCHES = 1.25, 2.2, 1.15


def draw_preview(folder: Path, model: MaskedAutoencoder, task: PretrainTask, volumes: Sequence[CachedVolume]) -> Path:
    """Write ``folder``/masking.png: a row for each stage of the progressive schedule, axial and coronal; its path.

    One window and the same two slices through it in every row.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    thickest = max(task.crops.shapes, key=lambda shape: (min(shape), np.prod(shape)))
    task = replace(task, crops=replace(task.crops, shapes=(thickest,), weights=(1.0,)))
    seed = max(range(TRIED_WINDOWS), key=lambda seed: float(fixed_crops(task, volumes, 0.0, seed)[0].image.std()))
    streams = [fixed_crops(task, volumes, hardness, seed) for hardness in STAGES]
    crops = [stream[0] for stream in streams]
    hidden = [enlarge(crop.mask[None], model.config.token_size)[0, 0] for crop in crops]
    slices = _telling_slice(hidden, 0), _telling_slice(hidden, 1)

    rows = len(STAGES)
    figure = Figure(figsize=(7.25 * PANEL_INCHES, HEAD_INCHES + rows * PANEL_INCHES), facecolor=BACKGROUND)
    FigureCanvasAgg(figure)
    depth, height, width = thickest
    ratios = [LABEL_WIDTH, *[width / height] * 3, *[width / depth] * 3]
    axes = figure.subplots(rows, 7, gridspec_kw={"width_ratios": ratios})
    top = 1 - HEAD_INCHES / figure.get_figheight()
    figure.subplots_adjust(left=0.008, right=0.992, bottom=0.012, top=top, wspace=0.04, hspace=0.05)
    for row, hardness, stream, crop, mask in zip(axes, STAGES, streams, crops, hidden, strict=True):
        error = _draw_stage(row[1:], model, task, crop, mask, slices)
        _describe(row[0], hardness, stream.step_plan(0)[1], float(crop.mask.float().mean()), error)
    _head(figure, axes[0], task)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "masking.png"
    figure.savefig(path, dpi=110, facecolor=BACKGROUND)
    return path


def _draw_stage(
    row: np.ndarray,
    model: MaskedAutoencoder,
    task: PretrainTask,
    crop: Crop,
    hidden: torch.Tensor,
    slices: tuple[int, int],
) -> float:
    """Six panels: three axial, three coronal. Returns the mean absolute error on hidden voxels of the scan."""
    image, restored = crop.image[0], reconstruct(model, crop, task)[0, 0].cpu()
    counted = hidden_scan(crop.inside[None], crop.mask[None], model.config.token_size)[0, 0]
    merged = torch.where(hidden, restored.clamp(-1, 1), image)
    right, anterior, superior = task.preprocessing.spacing_mm
    # (H, W) of an axial and (D, W) of a coronal slice, seen as a radiologist does: the patient's right is on the left
    planes = [
        (lambda x: x[slices[0]].flip(0, 1).numpy(), anterior / right),
        (lambda x: x[:, slices[1]].flip(0, 1).numpy(), superior / right),
    ]
    for first, (cut, aspect) in zip((0, 3), planes, strict=True):
        for axis, pixels in zip(row[first:], (image, image, merged), strict=False):
            axis.imshow(cut(pixels), cmap="gray", vmin=-1, vmax=1, aspect=aspect, interpolation="nearest")
        row[first + 1].imshow(_flat(cut(hidden)), aspect=aspect, interpolation="nearest")
        _outline(row[first + 2], cut(hidden))
    for axis in row:
        axis.set_axis_off()
    return float((restored - image).abs()[counted].mean())


def _telling_slice(hidden: Sequence[torch.Tensor], axis: int) -> int:
    """Of the middle half, the slice whose hidden share is nearest to the whole window's, over all stages."""
    n = hidden[0].shape[axis]
    others = [a for a in range(3) if a != axis]
    distance = sum((mask.float().mean(others) - mask.float().mean()).abs() for mask in hidden)
    return n // 4 + int(distance[n // 4 : n - n // 4].argmin())


def _outline(axis, hidden: np.ndarray) -> None:
    """The border of a mask (rows, columns), along the pixels' edges."""
    from matplotlib.collections import LineCollection

    rows, columns = np.nonzero(hidden[1:] != hidden[:-1])
    lines = [[(c - 0.5, r + 0.5), (c + 0.5, r + 0.5)] for r, c in zip(rows, columns, strict=True)]
    rows, columns = np.nonzero(hidden[:, 1:] != hidden[:, :-1])
    lines += [[(c + 0.5, r - 0.5), (c + 0.5, r + 0.5)] for r, c in zip(rows, columns, strict=True)]
    axis.add_collection(LineCollection(lines, colors=EDGE, linewidths=0.9, alpha=0.85))


def _flat(outline: np.ndarray) -> np.ndarray:
    """RGBA (rows, columns, 4): the colour of hidden places, transparent elsewhere."""
    from matplotlib.colors import to_rgba

    return outline[..., None] * np.array(to_rgba(HIDDEN))


def _describe(axis, hardness: float, masking: Masking, realised: float, error: float) -> None:
    tokens = " x ".join(str(n) for n in masking.block_tokens)
    size = " x ".join(f"{mm:g}" for mm in masking.block_mm)
    place = {"x": 0.06, "transform": axis.transAxes, "va": "center"}
    axis.set_axis_off()
    axis.text(y=0.76, s=f"{hardness:.0%}", color=TEXT, fontsize=26, weight="light", **place)
    axis.text(y=0.58, s="of the training", color=FAINT, fontsize=10, **place)
    axis.text(y=0.42, s=f"{realised:.1%} hidden", color=EDGE, fontsize=13, **place)
    axis.text(y=0.29, s=f"blocks of {tokens} tokens", color=TEXT, fontsize=10, **place)
    axis.text(y=0.18, s=f"{size} mm (S x A x R)", color=FAINT, fontsize=9, **place)
    axis.text(y=0.07, s=f"mean error there {error:.3f}", color=FAINT, fontsize=9, **place)


def _head(figure, top_row: np.ndarray, task: PretrainTask) -> None:
    inch = 1 / figure.get_figheight()
    title = "Progressive volumetric masking"
    figure.text(0.014, 1 - 0.36 * inch, title, color=TEXT, fontsize=22, weight="light", va="center")
    note = f"{task.model} encoder, pretrained for {task.steps} steps; intensities from -1 to 1; hidden places outlined"
    figure.text(0.014, 1 - 0.74 * inch, note, color=FAINT, fontsize=10.5, va="center")
    for first, plane in ((1, "axial"), (4, "coronal")):
        for axis, name in zip(top_row[first:], COLUMNS, strict=False):
            axis.set_title(f"{plane}: {name}", color=FAINT, fontsize=10, pad=6)
