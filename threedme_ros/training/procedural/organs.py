"""Solid organs of the upper abdomen and the gallbladder."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, Shape, largest
from .palette import FREE
from .trunk import Trunk


def paint_kidneys(canvas: Canvas, trunk: Trunk, missing: int = 0) -> None:
    """missing: -1 without the left kidney, 1 without the right one, 0 both there."""
    rng = canvas.rng
    size, rise = rng.uniform(0.88, 1.12), 0.8 * trunk.habitus.rise_mm
    for side, name in ((1, "right"), (-1, "left")):
        shift = rng.normal(0, (5, 4, 8))
        centre = np.array((side * 70, -14, (120 if side > 0 else 134) + rise)) + shift
        glands = np.array(
            [(side * 30, 8, centre[2] + 66), (side * 36, 0, centre[2] + 52), (side * 46, -6, centre[2] + 44)]
        )
        gland = canvas.tube(glands, (2.2, 3.6, 2.4))
        canvas.paint("adrenal", gland, canvas.is_any(gland.box, FREE))
        if side == missing:
            continue
        radii = np.array((30, 25, 55)) * size * rng.uniform(0.92, 1.08, 3)
        turn = (-12 + rng.normal(0, 5), side * (12 + rng.normal(0, 5)), side * 25)
        kidney = canvas.ellipsoid(centre, radii, turn, rough=2.0)
        free = canvas.is_any(kidney.box, FREE, "quadratus", "diaphragm")
        hilum = centre + np.array((-side * 19, 7, 0))
        sinus = canvas.ellipsoid(hilum, (15, 11, 26), turn, rough=2.0)
        kidney = kidney.intersect(_outside(canvas, sinus, kidney.box))
        canvas.paint(f"{name} kidney cortex", kidney, free)
        medulla = Shape(kidney.box, kidney.distance + 8 + 3 * canvas.noise(kidney.box, fine=True))
        canvas.paint(f"{name} kidney medulla", medulla, free)
        pelvis = canvas.ellipsoid(
            hilum + np.array((side * 2, 0, -2)), np.array((9, 7, 12)) * rng.uniform(0.5, 1.2), turn
        )
        canvas.paint("renal pelvis", pelvis, canvas.is_any(pelvis.box, FREE))
        ureter = np.array(
            [hilum + np.array((-side * 4, 2, -10)), (side * 44, 24, 60), (side * 40, 28, 0), (side * 42, -8, -60)]
        )
        tube = canvas.tube(ureter, 2.0)
        canvas.paint("renal pelvis", tube, canvas.is_any(tube.box, FREE))


def _outside(canvas: Canvas, shape: Shape, box: tuple[slice, slice, slice]) -> np.ndarray:
    """Distance on ``box`` that is negative outside ``shape``."""
    distance = np.full([s.stop - s.start for s in box], -1e3, np.float32)
    low = [max(a.start, b.start) for a, b in zip(shape.box, box, strict=True)]
    high = [min(a.stop, b.stop) for a, b in zip(shape.box, box, strict=True)]
    if all(a < b for a, b in zip(low, high, strict=True)):
        there = tuple(slice(a - s.start, b - s.start) for a, b, s in zip(low, high, box, strict=True))
        here = tuple(slice(a - s.start, b - s.start) for a, b, s in zip(low, high, shape.box, strict=True))
        distance[there] = -shape.distance[here]
    return distance


def paint_spleen(canvas: Canvas, trunk: Trunk) -> None:
    """A crescent on the left wall under the diaphragm."""
    rng, dome = canvas.rng, trunk.habitus.rise_mm
    size = rng.uniform(0.7, 1.08)
    centre = np.array((-108, -12, 222 + dome)) + rng.normal(0, (3, 5, 8))
    spleen = canvas.ellipsoid(centre, np.array((46, 60, 66)) * size, (20 + rng.normal(0, 8), 0, 0), rough=4)
    crescent = canvas.ellipsoid(
        centre + np.array((60, 34, 0)), np.array((52, 54, 75)) * rng.uniform(0.85, 1.05), rough=4
    )
    spleen = spleen.intersect(np.maximum(trunk.abdomen[spleen.box] + 4, _outside(canvas, crescent, spleen.box)))
    canvas.paint("spleen", spleen, largest(spleen.inside & canvas.is_any(spleen.box, FREE)))


# hepatic veins, then branches of the portal vein: points and radii, mm
LIVER_VEINS = (
    (((26, 40, 272), (60, 20, 262), (100, 0, 240)), (5, 4, 2.5)),
    (((26, 44, 272), (44, 60, 255), (55, 85, 225)), (5, 4, 2.5)),
    (((24, 44, 272), (0, 58, 262), (-30, 68, 248)), (5, 4, 2.5)),
    (((54, 48, 218), (80, 30, 222), (108, 10, 215)), (5.5, 4.5, 3)),
    (((54, 48, 218), (30, 62, 226), (0, 70, 238)), (5.5, 4, 2.5)),
    (((80, 30, 222), (95, 45, 195), (100, 55, 180)), (4.5, 3.5, 2.5)),
)


def paint_liver(canvas: Canvas, trunk: Trunk) -> None:
    """All that is free under the right dome, above a lower border that rises to the left, and a left lobe in front."""
    rng, dome, depth = canvas.rng, trunk.habitus.rise_mm, trunk.habitus.depth
    low = rng.normal(142, 16) + dome
    right = canvas.ellipsoid(
        (82, 16, 212 + dome), np.array((78, 98, 100)) * rng.uniform(0.94, 1.06, 3), (0, 0, 0), rough=6
    )
    reach = rng.uniform(0.75, 1.25)
    left = canvas.ellipsoid(
        (-4, 64 * depth, 238 + 0.8 * dome), (74 * reach, 44, 44 * rng.uniform(0.85, 1.15)), (0, -12, 12), rough=5
    )
    box = canvas.box((-110, -100, 90), (180, 180, 340))
    first, second = (-_outside(canvas, s, box) for s in (right, left))
    blend = 14.0
    h = np.clip(0.5 + (second - first) / (2 * blend), 0, 1)
    distance = second * (1 - h) + first * h - blend * h * (1 - h)
    x, y, z = canvas.x[box], canvas.y[box], canvas.z[box]
    border = low + 0.42 * (100 - x) + 0.12 * (60 - y)
    distance = np.maximum(distance, border - z + 5 * canvas.noise(box))
    fissure = np.hypot((x - 12 - 0.1 * (z - 200)) / 1.6, (y - 70 * depth) / 2.5) - 4
    distance = np.maximum(distance, np.where(z < low + 75, -fissure, -1e3))
    if rng.random() < 0.85:
        centre = np.array((50, 56 * depth, low + 28)) + rng.normal(0, 4, 3)
        bladder = canvas.ellipsoid(centre, np.array((14, 16, 30)) * rng.uniform(0.75, 1.15), (25, 15, 0), rough=1)
        canvas.paint("gallbladder", bladder, canvas.is_any(bladder.box, FREE))
    liver = Shape(box, np.maximum(distance, trunk.abdomen[box] + 4).astype(np.float32))
    canvas.paint("liver", liver, largest(liver.inside & canvas.is_any(box, FREE)))
    for points, radius in LIVER_VEINS:
        line = np.array(points) + np.array((0, 0, dome)) + rng.normal(0, 4, (len(points), 3))
        tube = canvas.tube(line, radius)
        canvas.paint("liver vessel", tube, canvas.is_any(tube.box, "liver"))


def paint_pancreas(canvas: Canvas, trunk: Trunk) -> None:
    rng = canvas.rng
    size = rng.uniform(0.9, 1.3)
    lift = rng.normal(0, 7)
    points = np.array(
        [
            (34, 38, 112),
            (30, 42, 132),
            (12, 52, 146),
            (-12, 56, 154),
            (-40, 40, 168),
            (-66, 18, 184 + lift),
            (-88, 8, 194 + lift),
        ]
    )
    points = points + np.array((0, 0, 0.8 * trunk.habitus.rise_mm)) + rng.normal(0, 3, points.shape)
    radii = np.array((12, 15, 9.5, 9.5, 9.5, 9, 7)) * size
    pancreas = canvas.tube(points, radii)
    pancreas = Shape(pancreas.box, pancreas.distance + 2 * canvas.noise(pancreas.box, fine=True))
    free = canvas.is_any(pancreas.box, FREE)
    canvas.paint("pancreas", pancreas, free)
    lobes = canvas.noise(pancreas.box, fine=True) > rng.uniform(0.3, 2.5)
    canvas.paint("pancreas fat", pancreas, free & lobes)
