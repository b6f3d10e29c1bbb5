"""Oesophagus, stomach and duodenum."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, Shape
from .palette import FREE
from .trunk import Trunk


def paint_stomach(canvas: Canvas, trunk: Trunk) -> None:
    """Stomach and duodenum. The patient lies on the back: gas collects in front."""
    rng, dome, depth = canvas.rng, trunk.habitus.rise_mm, trunk.habitus.depth
    fill = rng.uniform(0.3, 1.15)
    sag = rng.normal(-6, 16) + 0.8 * dome
    oesophagus = np.array([(-8, 12, 420), (-8, 14, 330), (-12, 22, 285), (-20, 26, 262)], float)
    canvas.paint("oesophagus", canvas.tube(oesophagus, 7.5))
    points = np.array(
        [
            (-22, 26, 258 + 0.8 * dome),
            (-62, 4, 272 + dome),
            (-74, 22, 246 + dome),
            (-72, 48 * depth, 218 + 0.9 * dome),
            (-54, 72 * depth, 182 + sag),
            (-18, 82 * depth, 160 + sag),
            (16, 76 * depth, 160 + 0.6 * sag),
            (36, 62 * depth, 172 + 0.8 * dome),
        ]
    )
    points = points + rng.normal(0, 3, points.shape)
    radii = np.array((9, 36, 39, 36, 29, 23, 17, 9)) * np.array((1, *[0.35 + 0.65 * fill] * 6, 1))
    stomach = canvas.tube(points, radii, step=3.5)
    stomach = Shape(stomach.box, stomach.distance + 2.5 * canvas.noise(stomach.box))
    stomach = stomach.intersect(trunk.abdomen[stomach.box] + 4)
    free = canvas.is_any(stomach.box, FREE)
    canvas.paint("stomach wall", stomach, free)
    content = Shape(stomach.box, stomach.distance + rng.uniform(3.5, 7.5))
    canvas.paint("stomach food" if rng.random() < 0.4 else "stomach fluid", content, free)
    level = (
        np.quantile(canvas.y[content.box][content.inside], min(rng.uniform(0.3, 1.05), 1))
        if content.inside.any()
        else 0
    )
    canvas.paint("stomach gas", content, free & (canvas.y[content.box] > level))
    line = [
        (36, 62 * depth, 172 + 0.8 * dome),
        (52, 50, 166),
        (60, 36, 140),
        (58, 30, 108),
        (38, 34, 88),
        (6, 38, 84),
        (-26, 42, 96),
        (-40, 52, 112),
    ]
    gut = canvas.tube(
        np.array(line) + np.array((0, 0, 0.8 * dome)) + rng.normal(0, 3, (len(line), 3)),
        (10, 13, 13, 13, 12.5, 11, 12, 12),
    )
    free = canvas.is_any(gut.box, FREE)
    canvas.paint("duodenum wall", gut, free)
    canvas.paint("duodenum fluid", Shape(gut.box, gut.distance + rng.uniform(2.5, 5)), free)
