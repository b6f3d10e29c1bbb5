"""Bones: vertebrae with processes, canal and discs, sacrum, ribs with cartilage, sternum, hip bones, thigh bones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .canvas import Canvas, Shape, curve
from .trunk import Trunk

# L5 up to T5: height of body and disc in mm
LEVELS = ("L5", "L4", "L3", "L2", "L1", "T12", "T11", "T10", "T9", "T8", "T7", "T6", "T5", "T4", "T3")
HEIGHTS = np.array([35, 36, 36, 35, 34, 31, 29, 28, 27, 26, 25, 24, 24, 23, 23], np.float64)


@dataclass(frozen=True)
class Spine:
    """base: z of the lower end plate of each level's disc space; (15,) each, mm. width: half width of the bodies."""

    base: np.ndarray
    height: np.ndarray
    width: np.ndarray
    depth: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Spine:
        size = rng.uniform(0.93, 1.08)
        width = np.interp(np.arange(15), [0, 4, 6, 14], [25.5, 22.5, 19.5, 15]) * size
        depth = np.interp(np.arange(15), [0, 4, 14], [17.5, 16.5, 13]) * size
        return cls(np.concatenate([[0], np.cumsum(HEIGHTS)[:-1]]), HEIGHTS.copy(), width, depth)

    def z(self, level: str, part: float = 0.5) -> float:
        n = LEVELS.index(level)
        return float(self.base[n] + part * self.height[n])


def paint_spine(canvas: Canvas, spine: Spine) -> None:
    rng, top = canvas.rng, float(canvas.z.max())
    canal = rng.uniform(0.9, 1.15)
    for n, level in enumerate(LEVELS):
        base, height, a, b = spine.base[n], spine.height[n], spine.width[n], spine.depth[n]
        if base > top:
            break
        lumbar = level[0] == "L"
        gap = (0.25 if lumbar else 0.18) * height * rng.uniform(0.8, 1.2)
        canvas.paint("disc", canvas.column([(base, 0, 0, a, b), (base + gap, 0, 0, a, b)]))
        end = base + height
        waist = [(base + gap, 0, 0, a, b), (base + 0.6 * height, 0, 0, 0.9 * a, 0.92 * b), (end, 0, 0, a, b)]
        back = -b - 16 * canal
        middle, tail = base + 0.62 * height, base + 0.35 * height
        length = rng.uniform(24, 31) if lumbar else rng.uniform(20, 27)
        fall = rng.uniform(0, 6) if lumbar else rng.uniform(14, 24)
        reach = rng.uniform(39, 48) if lumbar else rng.uniform(28, 33)
        tubes = [(np.array([(0, back - 3, middle), (0, back - length, tail - fall)]), 4.2 if lumbar else 3.6)]
        for side in (-1, 1):
            pedicle, facet = (side * 0.62 * a, -b * 0.8, middle + 3), (side * (13 * canal + 3), back + 5, tail)
            wing = (side * reach, back + (9 if lumbar else -2), middle + 3)
            tubes += [(np.array([pedicle, (side * 13 * canal, back + 7, middle)]), 5.0 if lumbar else 4.2)]
            tubes += [(np.array([(side * 13 * canal, back + 6, middle), wing]), 3.4)]
            tubes += [(np.array([(side * 13 * canal, back + 5, middle + 6), facet]), 4.5)]
            tubes += [(np.array([(side * 12 * canal, back + 4, middle), (0, back - 3, tail + 3)]), 3.6)]
        arch = [curve(points, radius, 3.0) for points, radius in tubes]
        arch = canvas.balls(np.concatenate([p for p, _ in arch]), np.concatenate([r for _, r in arch]))
        canvas.paint("vertebra cortex", arch)
        body = canvas.column(waist, power=2.2, rough=0.6)
        canvas.paint("vertebra cortex", body)
        canvas.paint("vertebra core", Shape(body.box, body.distance + 3.5))
    radius = 10.5 * canal
    centre = -17.5 - radius
    canvas.paint(
        "canal", canvas.column([(-90, 0, -34, 4, 3), (-20, 0, centre, radius, 7), (600, 0, centre + 3, radius, radius)])
    )
    _paint_sacrum(canvas)


def _paint_sacrum(canvas: Canvas) -> None:
    rng = canvas.rng
    s = rng.uniform(0.93, 1.07)
    rows = [
        (-112, 0, -62, 9, 5),
        (-95, 0, -66, 20, 8),
        (-70, 0, -63, 32, 12),
        (-45, 0, -51, 41, 17),
        (-20, 0, -33, 50, 22),
        (-8, 0, -22, 50, 22),
        (-2, 0, -12, 30, 20),
    ]
    sacrum = canvas.column([(z, x, y, a * s, b) for z, x, y, a, b in rows], power=2.3, rough=1.5)
    keep = ~canvas.is_any(sacrum.box, "canal")
    canvas.paint("vertebra cortex", sacrum, keep)
    canvas.paint("vertebra core", Shape(sacrum.box, sacrum.distance + 4), keep)
    crest = canvas.tube(np.array([(0, -52, -12), (0, -74, -40), (0, -80, -70)]), 5)
    canvas.paint("vertebra cortex", crest)


def rib_curve(trunk: Trunk, spine: Spine, level: str, side: int, rng: np.random.Generator) -> tuple[np.ndarray, bool]:
    """The centre line (N, 3) of a rib from the spine forward, and whether cartilage goes on from there."""
    n = LEVELS.index(level)
    number = 17 - n  # T12 is LEVELS[5]
    end = {12: 0.3, 11: 0.52, 10: 0.72}.get(number, 0.82)
    end *= rng.uniform(0.7, 1.2) if number == 12 else rng.uniform(0.95, 1.04)
    start_z = spine.z(level, 0.75)
    drop = {12: 72.0, 11: 112.0}.get(number, 136.0) * rng.uniform(0.85, 1.15)
    t = np.linspace(0, end, 24)
    angle = np.pi * (0.12 + 0.88 * t)  # 0 is straight behind, pi straight ahead
    z = start_z - 10 - (drop - 10) * np.minimum(t / 0.72, 1) ** 0.95
    a, front, back = (trunk.at(z, c) for c in (1, 2, 3))
    middle, half = (front - back) / 2, (front + back) / 2
    x = side * (a - 8) * np.sin(angle) ** 0.87
    y = middle - (half - 8) * np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** 0.87
    points = np.stack([x, y, z], 1)
    # the neck runs in front of the back muscles and reaches the wall beside them
    neck = np.array([(18, -17, start_z), (33, -33, start_z - 2), (62, -46, start_z - 9), (80, -54, start_z - 16)])
    far = (np.abs(points[:, 0]) > 94) | (points[:, 1] > 0)
    points = np.concatenate([neck * (side, 1, 1), points[far]])
    return points, number <= 10


def paint_ribs(canvas: Canvas, trunk: Trunk, spine: Spine) -> None:
    rng = canvas.rng
    tips: dict[int, list[np.ndarray]] = {-1: [], 1: []}
    sternum_z = 262 + rng.normal(0, 6)
    for level in LEVELS[5:]:
        for side in (-1, 1):
            points, joined = rib_curve(trunk, spine, level, side, rng)
            line, _ = curve(points, 4.4, 3.0)
            canvas.paint(
                "rib", canvas.balls(np.concatenate([line, line + np.array((0, 0, 3.5))]), 3.9 * rng.uniform(0.9, 1.1))
            )
            if joined:
                tips[side].append(points[-1])
    for side in (-1, 1):
        for n, tip in enumerate(tips[side]):
            z = max(tip[2] + 12, sternum_z - 12 + 14 * n)
            front = float(trunk.at(z, 2)) - 9
            half = np.array([(tip[0] * 0.62 + side * 8, (tip[1] + front) / 2 + 10, (tip[2] + z) / 2)])
            points = np.concatenate([tip[None], half, [(side * 10, front, z)]])
            canvas.paint("cartilage", canvas.tube(points, 4.8), None)
    rows = [(z, 0, float(trunk.at(z, 2)) - 9, w, 5) for z, w in ((sternum_z - 25, 4), (sternum_z, 13), (600, 17))]
    sternum = canvas.column(rows)
    canvas.paint("cortical bone", sternum)
    canvas.paint("trabecular bone", Shape(sternum.box, sternum.distance + 2))


def patch(edge: np.ndarray, other: np.ndarray, step: float = 5.0, bulge: np.ndarray | float = 0.0) -> np.ndarray:
    """Points (N, 3) of a ruled sheet between two curves, each given by points (K, 3); ``bulge``: mm at its middle."""
    first, second = (curve(p, 1.0, 2.0)[0] for p in (edge, other))
    count = int(max(len(first), len(second)) * 2.0 / step) + 2
    pick = [p[np.linspace(0, len(p) - 1, count).round().astype(int)] for p in (first, second)]
    across = int(np.linalg.norm(pick[0] - pick[1], axis=1).max() / step) + 2
    t = np.linspace(0, 1, across)[:, None, None]
    return (pick[0] * (1 - t) + pick[1] * t + np.asarray(bulge) * 4 * t * (1 - t)).reshape(-1, 3)


def sphere(count: int) -> np.ndarray:
    """Points (N, 3) spread evenly over the unit sphere (Fibonacci lattice)."""
    k = np.arange(count) + 0.5
    z, turn = 1 - 2 * k / count, np.pi * (1 + 5**0.5) * k
    return np.stack([np.sqrt(1 - z**2) * np.cos(turn), np.sqrt(1 - z**2) * np.sin(turn), z], 1)


# the right hip bone, (x, y, z) mm
CREST = np.array([(44, -66, -28), (72, -60, 16), (104, -22, 36), (124, 18, 31), (128, 52, 8), (116, 62, -14)], float)
ROOF = np.array([(46, -48, -48), (66, -40, -50), (80, -24, -62), (88, -6, -64), (94, 10, -60), (100, 28, -52)], float)
HEAD = np.array((88, 6, -84), float)
ISCHIUM = np.array([(80, -16, -84), (72, -34, -100), (62, -40, -128), (56, -30, -146)], float)
PUBIS = np.array([(80, 24, -80), (52, 52, -84), (24, 62, -92), (9, 60, -104)], float)
RAMUS = np.array([(56, -30, -144), (38, 10, -136), (18, 44, -120), (9, 56, -110)], float)


@dataclass(frozen=True, eq=False)
class Pelvis:
    """The shape of the hip bones of one body, mirrored but for small differences; points of the right side."""

    crest: np.ndarray
    roof: np.ndarray
    head: np.ndarray
    scale: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator, male: bool) -> Pelvis:
        scale = np.array([1.0 if male else 1.05, 1.0, 1.03 if male else 0.97]) * rng.uniform(0.95, 1.06, 3)
        crest = CREST * scale + rng.normal(0, (2.5, 2.5, 7)) + rng.normal(0, 2, CREST.shape)
        return cls(crest, ROOF * scale, HEAD * scale, scale)


def paint_hips(canvas: Canvas, trunk: Trunk, pelvis: Pelvis) -> None:
    for side in (-1, 1):
        mirror = np.array((side, 1, 1))
        s = pelvis.scale * mirror
        wing = patch(pelvis.crest * mirror, pelvis.roof * mirror, bulge=np.array((side * 5, -4, 0)))
        rods = [curve(p * s, r, 3.0) for p, r in ((pelvis.crest / pelvis.scale, 6.5), (ISCHIUM, (14, 13, 14, 11)))]
        rods += [curve(p * s, r, 3.0) for p, r in ((PUBIS, (11, 7.5, 7, 8)), (RAMUS, (8, 6, 6, 7)))]
        socket = pelvis.head * mirror + 29 * sphere(420)
        # the cup is open to the outside, front and below
        socket = socket[(socket - pelvis.head * mirror) @ (side * 0.75, 0.3, -0.6) < 8]
        points = np.concatenate([wing, socket, *[p for p, _ in rods]])
        radii = np.concatenate([np.full(len(wing), 5.6), np.full(len(socket), 5.0), *[r for _, r in rods]])
        bone = canvas.balls(points, radii)
        bone = bone.intersect(trunk.shell[bone.box] + 4)  # a broad pelvis in a thin body stays under the skin
        canvas.paint("hip cortex", bone)
        canvas.paint("hip core", Shape(bone.box, bone.distance + 3.2))
        _paint_femur(canvas, pelvis.head * mirror, side)
    canvas.paint("cartilage", canvas.ellipsoid((0, 58 * pelvis.scale[1], -106 * pelvis.scale[2]), (4, 8, 16)))


def _paint_femur(canvas: Canvas, head: np.ndarray, side: int) -> None:
    turn = canvas.rng.normal(0, 4)
    neck = head + np.array((side * 38, -12 + turn, -18))
    shaft = head + np.array([(side * 52, -14 + turn, -22), (side * 48, -8, -60), (side * 42, 0, -150)])
    parts = [curve(np.array([head, neck]), (22.5, 16), 4.0), curve(shaft, (17, 17, 14), 4.0)]
    parts.append((head[None], np.array([23.5])))
    bone = canvas.balls(np.concatenate([p for p, _ in parts]), np.concatenate([r for _, r in parts]))
    free = ~canvas.is_any(bone.box, "hip cortex", "hip core")
    canvas.paint("cortical bone", bone, free)
    canvas.paint("trabecular bone", Shape(bone.box, bone.distance + 4), free)
