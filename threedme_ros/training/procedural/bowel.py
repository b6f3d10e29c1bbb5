"""The colon as a frame from caecum to rectum, and the small bowel coiled in what is left free."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, Shape, curve
from .palette import FREE
from .trunk import Trunk


def colon_line(trunk: Trunk, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Centre line (N, 3) of the colon from caecum to anus in mm, and its radii (N,)."""
    h = trunk.habitus
    wall = float(trunk.at(60, 4))
    side, front = wall - 27, float(trunk.at(120, 5)) - 30
    sag = rng.normal(0, 20) + 0.5 * h.rise_mm
    flexure = rng.normal(0, 10) + 0.8 * h.rise_mm
    rows = [
        (side - 22, 44, -22, 26),
        (side - 8, 30, 5, 27),
        (side, 14, 50, 25),
        (side, 8, 95, 23),
        (side - 4, 22, 128 + flexure, 22),
        (side - 14, front * 0.65, 138 + flexure, 21),
        (52, front, 118 + sag, 21),
        (0, front + 4, 104 + 1.3 * sag, 21),
        (-46, front, 128 + sag, 20),
        (4 - side, front * 0.62, 176 + flexure, 20),
        (-side - 6, 14, 202 + flexure, 20),
        (-side - 6, -8, 168, 17),
        (-side - 3, -8, 110, 16),
        (-side - 2, 0, 55, 15),
        (12 - side, 22, 8, 15),
        (-70, 36, -22, 15),
        (-46, 28 + rng.normal(0, 8), -46, 15),
        (-10 + rng.normal(0, 14), 34 + rng.normal(0, 12), -26 + rng.normal(0, 14), 16),
        (28 + rng.normal(0, 14), 14 + rng.normal(0, 10), -22 + rng.normal(0, 12), 16),
        (10, -12, -30, 16),
        (0, -32, -56, 18),
        (0, -36, -82, 20),
        (0, -22, -106, 16),
        (0, -14, -122, 9),
    ]
    table = np.array(rows)
    table[:-4, :3] += rng.normal(0, 4, (len(rows) - 4, 3))
    full = np.repeat(rng.uniform(0.72, 1.35, 8), 3)[: len(rows)]
    line, radius = curve(table[:, :3], table[:, 3] * (0.5 + 0.5 * full) * (0.97 + 0.1 * h.girth - 0.1), 3.0)
    return line, radius


def paint_colon(canvas: Canvas, trunk: Trunk) -> None:
    rng = canvas.rng
    line, radius = colon_line(trunk, rng)
    # haustra: pouches some 30 mm long, not in the rectum
    along = 3.0 * np.arange(len(line))
    haustra = 1 + 0.16 * np.sin(2 * np.pi * along / rng.uniform(26, 36)) * (along < along[-1] - 180)
    colon = canvas.balls(line, radius * haustra)
    colon = Shape(colon.box, colon.distance + 2.0 * canvas.noise(colon.box, fine=True))
    colon = colon.intersect(trunk.wall(colon.box, 3))
    free = canvas.is_any(colon.box, FREE)
    canvas.paint("colon wall", colon, free)
    content = Shape(colon.box, colon.distance + rng.uniform(2.2, 4.5))
    inside = content.inside & free
    patchy = canvas.noise(colon.box)
    stool, gas = rng.uniform(-1.2, 1.2), rng.uniform(-1.0, 2.2)
    canvas.paint("colon fluid", content, inside)
    canvas.paint("colon stool", content, inside & (patchy > stool))
    bubbles = canvas.noise(colon.box) + 0.02 * (canvas.y[colon.box] - 30) > gas
    canvas.paint("colon gas", content, inside & bubbles)


def coil(free: np.ndarray, rng: np.random.Generator, steps: int, radius: float) -> np.ndarray:
    """A path (N, 3) in voxels of the coarse mask ``free`` (D, H, W) that folds into what it has not yet filled.

    radius: in coarse voxels. Each step takes the best of a few turns: room ahead, and little turning.
    """
    room = free.astype(np.float32)
    places = np.argwhere(free)
    at = places[rng.integers(len(places))].astype(float)
    heading = rng.normal(0, 1, 3)
    heading /= np.linalg.norm(heading)
    top = np.array(free.shape) - 1
    reach = np.arange(-int(radius + 1), int(radius + 1) + 1)
    ball = np.stack(np.meshgrid(reach, reach, reach, indexing="ij"), -1).reshape(-1, 3)
    ball = ball[(ball**2).sum(1) <= radius**2]
    path = [at]
    for _ in range(steps):
        turns = heading + rng.normal(0, 0.45, (10, 3))
        turns /= np.linalg.norm(turns, axis=1, keepdims=True)
        score = 0.35 * turns @ heading
        for far in (radius, 2 * radius):
            index = np.rint(at + far * turns).astype(int)
            valid = ((index >= 0) & (index <= top)).all(1)
            index = np.clip(index, 0, top)
            score += np.where(valid, room[tuple(index.T)], -1.0)
        best = int(np.argmax(score))
        heading, at = turns[best], at + turns[best]
        index = np.rint(at).astype(int)
        if (index < 0).any() or (index > top).any() or not free[tuple(index)] or score[best] < -0.2:
            places = np.argwhere(room > 0.5)
            if len(places) < 20:
                break
            at = places[rng.integers(len(places))].astype(float)
            path.append(np.full(3, np.nan))
        else:
            before = path[-3] if len(path) > 3 and np.isfinite(path[-3]).all() else at
            behind = np.clip(np.rint(before).astype(int) + ball, 0, top)
            room[tuple(behind.T)] = -0.4
        path.append(at)
    return np.array(path)


def paint_small_bowel(canvas: Canvas, trunk: Trunk) -> None:
    rng, depth = canvas.rng, trunk.habitus.depth
    box = canvas.box((-130, -40, -95), (130, 150, 175))
    x, y, z = canvas.x[box], canvas.y[box], canvas.z[box]
    # in front of the retroperitoneum, below the transverse mesocolon, above the pelvic floor
    back = np.where(z > 0, 30 - 14 * np.clip(np.abs(x) / 60 - 0.6, 0, 1), 6)
    roof = 152 + 0.7 * trunk.habitus.rise_mm - 0.12 * x + 6 * canvas.noise(box)
    allowed = canvas.is_any(box, FREE) & (y > back) & (z < roof) & (trunk.cavity[box] < -8) & (z > -84)
    coarse = allowed[::2, ::2, ::2]
    if coarse.sum() < 200:
        return
    radius_mm = rng.uniform(10.5, 16)
    radius = radius_mm / float(canvas.spacing.mean() * 2)
    steps = int(coarse.sum() * rng.uniform(0.5, 0.95) * (1 - 0.45 * trunk.habitus.visceral) / (np.pi * radius**2))
    path = coil(coarse, rng, steps, radius)
    path = path[np.isfinite(path).all(1)]
    starts = np.array([s.start for s in box])
    index = np.clip(np.rint(path * 2 + starts), 0, np.array(canvas.shape) - 1).astype(int)
    points = np.stack([f[tuple(index.T)] for f in (canvas.x, canvas.y, canvas.z)], 1)
    waves = rng.normal(0, 1, 64)
    swell = 1 + 0.18 * np.interp(np.arange(len(points)) / 12, np.arange(64), waves, period=64)
    gut = canvas.balls(points, radius_mm * np.clip(swell, 0.6, 1.5))
    free = canvas.is_any(gut.box, FREE) & (trunk.cavity[gut.box] < -3)
    canvas.paint("small bowel wall", gut, free)
    content = Shape(gut.box, gut.distance + rng.uniform(2.5, 6) + 2 * canvas.noise(gut.box, fine=True))
    canvas.paint("small bowel fluid", content, free)
    gas = canvas.noise(gut.box) + 0.015 * (canvas.y[gut.box] / depth - 60) > rng.uniform(1.0, 3.0)
    canvas.paint("small bowel gas", content, free & gas)
