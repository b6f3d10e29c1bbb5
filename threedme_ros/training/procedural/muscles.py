"""Muscles the model knows (autochthon, iliopsoas) and those beside them (quadratus, gluteals, rectus)."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas
from .skeleton import Pelvis, patch
from .trunk import Trunk


def paint_muscles(canvas: Canvas, trunk: Trunk, pelvis: Pelvis) -> None:
    """To be called before the bones: muscles fill what the bones leave."""
    rng, h = canvas.rng, trunk.habitus
    bulk = rng.uniform(0.76, 1.02)
    thin = 0.75 + 0.5 * rng.random()
    for side in (-1, 1):
        _paint_gluteals(canvas, trunk, pelvis, side)
        back = [(z, side * x, y, a * min(bulk, 1.1), b * bulk) for z, x, y, a, b in AUTOCHTHON]
        muscle = canvas.column(back, power=2.4, rough=1.5)
        muscle = muscle.intersect(trunk.shell[muscle.box] + 3)
        canvas.paint("autochthon", muscle)
        lean = np.abs(canvas.noise(muscle.box, fine=True)) < 0.15 + 0.25 * h.visceral
        canvas.paint("autochthon fat", muscle, lean)
        canvas.paint("quadratus", canvas.column([(z, side * x, y, a, b * thin) for z, x, y, a, b in QUADRATUS]))
        psoas = [(z, side * x, y, a * bulk, b * bulk) for z, x, y, a, b in PSOAS]
        canvas.paint("iliopsoas", canvas.column(psoas, rough=1.2))
        mirror = np.array((side, 1, 1))
        inner = pelvis.scale * mirror
        sheet = patch(ILIACUS_TOP * inner, ILIACUS_LOW * inner, bulge=np.array((side * 3, -3, 0)))
        canvas.paint("iliacus", canvas.balls(sheet, 9.5 * bulk))


def _paint_gluteals(canvas: Canvas, trunk: Trunk, pelvis: Pelvis, side: int) -> None:
    mirror = np.array((side, 1, 1))
    outer = patch((pelvis.crest[1:] + np.array((5, 0, -10))) * mirror, GLUTEAL_LOW * pelvis.scale * mirror, 8.0)
    medius = canvas.balls(outer, 17 * canvas.rng.uniform(0.85, 1.15))
    canvas.paint("gluteus medius", medius.intersect(trunk.shell[medius.box] + 2))
    centre = np.array((62 * side, -62, -78)) * pelvis.scale
    maximus = canvas.ellipsoid(centre, (62, 32, 92), (10, 18 * side, -25 * side), rough=3)
    canvas.paint("gluteus maximus", maximus.intersect(trunk.shell[maximus.box] + 1))


# z, centre x, centre y, half width, half depth; the right side, mm
AUTOCHTHON = (
    (-75, 14, -82, 9, 7),
    (-40, 22, -72, 17, 11),
    (0, 32, -58, 26, 19),
    (50, 36, -51, 31, 23),
    (110, 37, -50, 32, 23),
    (170, 36, -50, 32, 20),
    (230, 33, -51, 29, 17),
    (300, 28, -50, 25, 15),
    (420, 25, -48, 23, 14),
)
QUADRATUS = ((38, 78, -38, 20, 9), (90, 72, -30, 19, 9), (150, 58, -28, 16, 8), (180, 46, -28, 9, 5))
PSOAS = (
    (-150, 78, -2, 10, 10),
    (-125, 82, 20, 15, 14),
    (-85, 84, 44, 19, 16),
    (-50, 74, 42, 19, 17),
    (-10, 58, 26, 20, 20),
    (30, 48, 10, 18, 20),
    (75, 39, 0, 15, 18),
    (115, 32, -6, 10, 12),
    (140, 26, -8, 6, 8),
    (162, 23, -8, 3, 4),
)
ILIACUS_TOP = np.array([(60, -40, -16), (86, -20, 22), (106, 12, 28), (114, 42, 4), (106, 54, -24)], float)
ILIACUS_LOW = np.array([(62, -22, -34), (74, 0, -40), (84, 20, -44), (88, 38, -52), (88, 48, -62)], float)
GLUTEAL_LOW = np.array([(78, -52, -70), (104, -30, -78), (120, -8, -86), (122, 14, -84), (118, 38, -70)], float)
