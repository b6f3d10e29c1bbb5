"""Great vessels of the trunk: aorta and iliac arteries, vena cava and iliac veins, portal, renal, mesenteric."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas
from .skeleton import Spine


def paint_vessels(canvas: Canvas, spine: Spine) -> None:
    rng = canvas.rng
    size, flat = rng.uniform(0.82, 1.25), rng.uniform(0.6, 1.05)
    fork, join = spine.z("L4", rng.uniform(-0.4, 0.6)), spine.z("L5", rng.uniform(0.0, 0.8))
    side = rng.normal(0, 2.5, 4)
    front = 19 + spine.depth[0] - 17
    aorta = [
        (600, -21, 8, 12.5),
        (330, -21 + side[0], 10, 12.0),
        (255, -13 + side[1], 22, 11.5),
        (190, -9 + side[2], front + 11, 10.5),
        (120, -8 + side[3], front + 12, 9.0),
        (fork, -5, front + 10, 8.5),
    ]
    rows = [(z, x, y, r * size, r * size) for z, x, y, r in aorta[::-1]]
    canvas.paint("aorta", canvas.column(rows, rough=0.5))
    width = rng.uniform(0.85, 1.15)
    cava = [
        (join, 16, front + 9, 12, 8),
        (90, 19 + side[0], front + 11, 11.5, 9),
        (150, 22 + side[1], front + 14, 12, 9.5),
        (205, 25 + side[2], front + 20, 12.5, 11),
        (250, 26, front + 26, 13.5, 12),
        (285, 22, front + 32, 13, 12),
    ]
    canvas.paint(
        "vena cava", canvas.column([(z, x, y, a * width, b * width * flat) for z, x, y, a, b in cava], rough=0.6)
    )
    for s in (-1, 1):
        limb = np.array([(22, 24, -10), (50, 6, -35), (62, 42, -62), (68, 62, -88), (62, 64, -170)]) * (s, 1, 1)
        start = np.array([(-5 + 6 * s, front + 9, fork - 4)])
        canvas.paint("artery", canvas.tube(np.concatenate([start, limb + (0, 3, 0)]), (6, 5.5, 5, 4.5, 4.5, 4)))
        start = np.array([(14 + 5 * s, front + 6, join - 4)])
        limb = limb + (-7 * s, -6, 0)
        canvas.paint("vein", canvas.tube(np.concatenate([start, limb]), (7, 6.5, 6, 5.5, 5.5, 5)))
        renal = spine.z("L1", 0.2) + rng.normal(0, 5)
        points = np.array([(s * 5, front + 8, renal), (s * 30, 14, renal - 4), (s * 50, 2, renal - 8)])
        canvas.paint("artery", canvas.tube(points, (3.2, 3, 2.5)))
        canvas.paint("vein", canvas.tube(points + (0, 7, 5), (4, 4, 3.5)))
    root = front + 20
    z = spine.z("L1", 0.5)
    canvas.paint("artery", canvas.tube(np.array([(-6, root, z), (-3, root + 13, z - 30), (4, root + 18, z - 75)]), 3.4))
    canvas.paint(
        "vein", canvas.tube(np.array([(10, root + 14, z - 5), (10, root + 15, z - 40), (14, root + 18, z - 80)]), 4.6)
    )
    celiac = spine.z("T12", 0.5)
    points = np.array([(-8, root, celiac), (-8, root + 16, celiac), (-45, 28, celiac + 12), (-85, 8, celiac + 20)])
    canvas.paint("artery", canvas.tube(points, 3.0))
    points = np.array([(10, root + 14, z - 4), (-20, root + 6, z + 12), (-60, 20, z + 36), (-92, 5, z + 48)])
    canvas.paint("portal vein", canvas.tube(points, (5.5, 4.8, 4.2, 4)))
    points = np.array(
        [(10, root + 14, z - 4), (24, root + 13, z + 22), (38, root + 12, z + 44), (54, root + 10, z + 54)]
    )
    canvas.paint("portal vein", canvas.tube(points, (6, 6.5, 6.5, 5)))
