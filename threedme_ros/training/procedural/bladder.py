"""The urinary bladder, and the prostate or the uterus beside it."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, Shape
from .palette import FREE
from .trunk import Trunk


def paint_bladder(canvas: Canvas, trunk: Trunk) -> None:
    """Bladder on the pelvic floor behind the pubis, prostate below or uterus behind it."""
    rng, male = canvas.rng, trunk.habitus.male
    volume = float(rng.uniform(50**0.5, 520**0.5) ** 2)
    radius = (1.1 * volume * 1000 * 3 / 4 / np.pi) ** (1 / 3)
    radii = radius * np.array((1.12, 0.98, 0.92)) * rng.uniform(0.93, 1.07, 3)
    base = -98 + (6 if male else 0)
    centre = np.array((rng.normal(0, 3), min(30 + rng.normal(0, 4), 78 - radii[1]), base + radii[2]))
    bladder = canvas.ellipsoid(centre, radii, rough=2.5)
    bladder = bladder.intersect(trunk.cavity[bladder.box] + 3)
    canvas.paint("bladder wall", bladder, canvas.is_any(bladder.box, FREE))
    inner = Shape(bladder.box, bladder.distance + rng.uniform(2.5, 5.5))
    canvas.paint("urine", inner, canvas.is_any(bladder.box, "bladder wall"))
    if male:
        organ = canvas.ellipsoid((0, 22, base - 8), np.array((25, 19, 19)) * rng.uniform(0.85, 1.25), rough=2)
    else:
        top = base + 1.2 * radii[2]
        organ = canvas.ellipsoid(
            (rng.normal(0, 8), -8, top), np.array((25, 38, 22)) * rng.uniform(0.8, 1.2), (25, 0, 0), rough=3
        )
    canvas.paint("pelvic organ", organ, canvas.is_any(organ.box, FREE))
