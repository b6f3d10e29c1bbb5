"""A procedural trunk as a training case: draw a body, paint it, give it the look of a CT."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from threedme_ros.anatomy import Anatomy
from threedme_ros.model.config import Preprocessing
from threedme_ros.training.case import TrainingCase, class_locations
from threedme_ros.training.tissues import Tissues

from .bladder import paint_bladder
from .bowel import paint_colon, paint_small_bowel
from .canvas import Canvas
from .muscles import paint_muscles
from .organs import paint_kidneys, paint_liver, paint_pancreas, paint_spleen
from .palette import Palette
from .skeleton import Pelvis, Spine, paint_hips, paint_ribs, paint_spine
from .stomach import paint_stomach
from .trunk import Habitus, Trunk, paint_frame
from .vessels import paint_vessels

Progress = Callable[[int, int], None]


def procedural_case(seed: int, anatomy: Anatomy, preprocessing: Preprocessing) -> TrainingCase:
    """Trunk number ``seed``, from mid-thorax to the thighs, on the model's grid; the same for the same seed.

    No patient stands behind it: shapes follow textbook rules and random parameters. Its image is the tissues' mean
    with a little texture; windows of it are always synthesised (``real`` is False).
    """
    rng = np.random.default_rng(np.random.SeedSequence((seed, 0x7EC5)))
    canvas = paint_trunk(rng, preprocessing)
    tissues = canvas.palette.tissues(anatomy, preprocessing, rng)
    body = _around(canvas.tissue != canvas.palette["air"], margin=3)
    image = torch.from_numpy(_image(canvas, tissues, rng)[body].copy())
    tissue = torch.from_numpy(canvas.tissue[body].copy())
    labels = torch.from_numpy(canvas.palette.targets(anatomy))[tissue.int()]
    return TrainingCase(f"phantom {seed}", image, tissue, labels, tissues, class_locations(labels), real=False)


def procedural_cases(
    count: int, seed: int, anatomy: Anatomy, preprocessing: Preprocessing, progress: Progress | None = None
) -> list[TrainingCase]:
    """``count`` trunks of the run ``seed``; ``progress`` is told how many are made, of how many."""
    cases = []
    for child in np.random.SeedSequence(seed).generate_state(count) if count else ():
        cases.append(procedural_case(int(child), anatomy, preprocessing))
        if progress is not None:
            progress(len(cases), count)
    return cases


def paint_trunk(rng: np.random.Generator, preprocessing: Preprocessing) -> Canvas:
    """A whole painted body. Earlier structures keep their place: soft organs take what is free."""
    habitus = Habitus.draw(rng)
    canvas = _canvas(rng, habitus, preprocessing)
    trunk = Trunk(canvas, habitus)
    spine, pelvis = Spine.draw(rng), Pelvis.draw(rng, habitus.male)
    paint_frame(canvas, trunk)
    paint_muscles(canvas, trunk, pelvis)
    paint_hips(canvas, trunk, pelvis)
    paint_spine(canvas, spine)
    paint_ribs(canvas, trunk, spine)
    paint_vessels(canvas, trunk, spine)
    paint_kidneys(canvas, trunk, missing=int(rng.choice([-1, 0, 1], p=[0.03, 0.94, 0.03])))
    paint_bladder(canvas, trunk)
    paint_pancreas(canvas, trunk)
    paint_spleen(canvas, trunk)
    paint_stomach(canvas, trunk)
    paint_liver(canvas, trunk)
    paint_colon(canvas, trunk)
    paint_small_bowel(canvas, trunk)
    return canvas


def _canvas(rng: np.random.Generator, habitus: Habitus, preprocessing: Preprocessing) -> Canvas:
    height, breadth = rng.uniform(0.9, 1.1), rng.uniform(0.92, 1.12)
    scale = np.array((height, breadth, breadth * rng.uniform(0.96, 1.04)))
    spacing = np.array(preprocessing.spacing_mm[::-1]) / scale
    low, high = rng.uniform(-195, -145), rng.uniform(320, 375)
    fat = 12 + 1.6 * habitus.fat_mm
    wide = 172 * max(habitus.girth, 1) + fat
    wide += 95 if habitus.arms else 0
    front, back = 128 * max(habitus.depth, 1) + fat, 104 + fat
    extent = np.array((high - low, front + back, 2 * wide))
    extent[0] += (habitus.pelvis - 1) * -low
    shape = tuple(int(n) for n in np.ceil(extent / spacing))
    z = low * habitus.pelvis + spacing[0] * np.arange(shape[0])
    longer = np.minimum(z, 0) * (1 / habitus.pelvis - 1)
    lordosis = rng.uniform(-2, 22) * np.exp(-(((z - 80) / 90) ** 2))
    kyphosis = -rng.uniform(0, 26) * np.clip((z - 180) / 160, 0, 1.5) ** 2
    scoliosis = rng.normal(0, 6) * np.sin((z + rng.uniform(0, 400)) / rng.uniform(80, 130))
    origin = (low * habitus.pelvis, -back, -wide)
    return Canvas(rng, shape, spacing, origin, Palette(), rng.uniform(2, 4.5), (longer, lordosis + kyphosis, scoliosis))


def _around(mask: np.ndarray, margin: int) -> tuple[slice, slice, slice]:
    """The box of ``mask`` (D, H, W) bool, and ``margin`` voxels around it where there are any."""
    box = []
    for axis, length in enumerate(mask.shape):
        there = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
        box.append(slice(max(int(there[0]) - margin, 0), min(int(there[-1]) + 1 + margin, length)))
    return tuple(box)


def _image(canvas: Canvas, tissues: Tissues, rng: np.random.Generator) -> np.ndarray:
    """The tissues' mean with a little texture; (D, H, W) float32 in [-1, 1]."""
    grain = 0.8 * rng.standard_normal(canvas.shape, np.float32) + 0.6 * canvas.noise(canvas.whole(), fine=True)
    image = tissues.mean.numpy()[canvas.tissue] + tissues.std.numpy()[canvas.tissue] * grain
    return np.clip(image, -1, 1).astype(np.float32)
