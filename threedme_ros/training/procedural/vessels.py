"""Great vessels of the trunk: aorta and iliac arteries, vena cava and iliac veins, portal, renal, mesenteric."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas
from .skeleton import Spine
from .trunk import Trunk


def paint_vessels(canvas: Canvas, trunk: Trunk, spine: Spine) -> None:
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
    width = rng.uniform(0.85, 1.15)
    cava = [
        (join, 16, front + 9, 12, 8),
        (90, 19 + side[0], front + 11, 11.5, 9),
        (150, 22 + side[1], front + 14, 12, 9.5),
        (205, 25 + side[2], front + 20, 12.5, 11),
        (250, 26, front + 26, 13.5, 12),
        (285, 22, front + 32, 13, 12),
    ]
    for s in (-1, 1):
        limb = np.array([(22 * s, 24, -10), (50 * s, 6, -35), (62 * s, 42, -62), (68 * s, 62, -88), (62 * s, 64, -170)])
        start = np.array([(-5 + 6 * s, front + 9, fork - 4)])
        line = np.concatenate([start, limb + np.array((0, 3, 0))])
        canvas.paint("artery", canvas.tube(line, (6, 5.5, 5, 4.5, 4.5, 4)))
        line = np.concatenate([[(14 + 5 * s, front + 6, join - 4)], limb + np.array((-7 * s, -6, 0))])
        canvas.paint("vein", canvas.tube(line, (7, 6.5, 6, 5.5, 5.5, 5)))
        renal = spine.z("L1", 0.2) + rng.normal(0, 5)
        line = np.array([(s * 5, front + 8, renal), (s * 30, 14, renal - 4), (s * 50, 2, renal - 8)])
        canvas.paint("artery", canvas.tube(line, (3.2, 3, 2.5)))
        canvas.paint("vein", canvas.tube(line + np.array((0, 7, 5)), (4, 4, 3.5)))
    _paint_gut_vessels(canvas, spine, front + 20, 0.8 * trunk.habitus.rise_mm)
    # last, so that no branch cuts them
    canvas.paint("aorta", canvas.column(rows, rough=0.5))
    canvas.paint(
        "vena cava", canvas.column([(z, x, y, a * width, b * width * flat) for z, x, y, a, b in cava], rough=0.6)
    )


def _paint_gut_vessels(canvas: Canvas, spine: Spine, root: float, rise: float) -> None:
    """Mesenteric, splenic and portal vessels. root: y where they leave the aorta; rise: how the organs moved, mm."""
    z, celiac = spine.z("L1", 0.5), spine.z("T12", 0.5)
    hub = z - 4 + rise
    liver, spleen, hilum = (54, 48, hub + 58), (-92, 5, hub + 52), (-85, 8, celiac + rise)
    lines = (
        ("artery", 3.4, [(-6, root, z), (-3, root + 13, z - 30), (4, root + 18, z - 75)]),
        ("vein", 4.6, [(10, root + 14, hub), (10, root + 15, hub - 36), (14, root + 18, hub - 76)]),
        ("artery", 3.0, [(-8, root, celiac), (-8, root + 16, celiac), (-45, 28, celiac + rise), hilum]),
        ("portal vein", 4.8, [(10, root + 14, hub), (-20, root + 6, hub + 16), (-60, 20, hub + 40), spleen]),
        ("portal vein", 6.2, [(10, root + 14, hub), (24, root + 13, hub + 26), (38, root + 12, hub + 48), liver]),
    )
    for name, radius, line in lines:
        canvas.paint(name, canvas.tube(np.array(line), radius))
