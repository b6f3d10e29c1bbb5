"""What a scope model is fitted on: bodies that belong into the theatre's scanner, and what else may lie there.

Everything is an image x (D, H, W) float32 in [-1, 1] on the model's grid, as `prepare` makes it. Bodies are windows of
the training stream (the patients' label maps and procedural trunks, whole or cut off, CT and MR). The others are made
from rules alone: heads, limbs, phantoms, empty rooms, noise, and bodies whose blocks were shuffled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import ndimage

from .augment import PADDING
from .case import TrainingCase
from .data import WindowStream
from .synthesis import SynthesisConfig
from .window_config import WindowConfig

Rng = np.random.Generator

BODY_WINDOWS = WindowConfig(
    shapes=((112, 112, 128), (64, 112, 128), (96, 96, 96), (32, 112, 128), (16, 112, 144)),
    weights=(0.3, 0.25, 0.15, 0.15, 0.15),
    synthetic=0.7,
    synthesis=SynthesisConfig(contrasts=(0.5, 0.4, 0.1)),
)


def bodies(cases: Sequence[TrainingCase], weights: Sequence[float], seed: int, count: int):
    """``count`` images of bodies in scope, cut to what was seen."""
    stream = WindowStream(cases, weights, BODY_WINDOWS, seed, count)
    for number in range(count):
        image = stream[number][0][0].numpy()
        seen = ndimage.find_objects((image > PADDING).astype(np.uint8))
        yield np.ascontiguousarray(image[seen[0]]) if seen else image


def others(cases: Sequence[TrainingCase], seed: int, count: int):
    """``count`` pairs (kind, image) out of scope, the kinds in turn."""
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        kind = OTHERS[number % len(OTHERS)]
        if kind == SHUFFLED:
            source = next(bodies(cases, [1.0] * len(cases), seed + number, 1))
            yield kind, shuffled(source, rng)
        else:
            yield kind, KINDS[kind](rng)


def noise(rng: Rng) -> np.ndarray:
    """White, Rayleigh or smoothed at one of many scales, centred anywhere in the range."""
    shape = _shape(rng)
    x = np.abs(rng.standard_normal(shape)) - 0.8 if rng.random() < 0.3 else rng.standard_normal(shape)
    if rng.random() < 0.6:
        x = ndimage.gaussian_filter(x, np.exp(rng.uniform(np.log(0.4), np.log(8.0))), mode="wrap")
    return _clipped(x / x.std() * np.exp(rng.uniform(np.log(0.05), np.log(0.8))) + rng.uniform(-0.9, 0.6))


def empty_room(rng: Rng) -> np.ndarray:
    """Air, a table now and then, and the scanner's noise."""
    shape = _shape(rng)
    x = np.full(shape, PADDING)
    if rng.random() < 0.7:
        _, height, width = shape
        h, w = np.ogrid[:height, :width]
        top = rng.uniform(0.1, 0.5) * height
        curve = top + rng.uniform(0, 0.15) * height * ((w / width - 0.5) * 2) ** 2
        x[:, np.abs(h - curve) < rng.uniform(0.7, 4)] = rng.uniform(-0.9, 0.3)
    x = ndimage.gaussian_filter(x, 0.5) + rng.standard_normal(shape) * rng.uniform(0.005, 0.15)
    return _clipped(x)


def phantom(rng: Rng) -> np.ndarray:
    """A ball, cylinder or box of water or plastic, with rods, balls and plates in it."""
    shape = _shape(rng)
    grid = _millimetres(shape)
    x = np.full(shape, -1.0)
    middle = [rng.uniform(-0.1, 0.1) * n * 3 for n in shape]
    radius = rng.uniform(50, 0.48 * 3 * min(shape[1:]))
    form = rng.choice(["ball", "cylinder", "lying cylinder", "box"])
    body = _form(form, grid, middle, radius * rng.uniform(0.8, 1.2, 3))
    x[body] = rng.uniform(-0.3, 0.4)
    if rng.random() < 0.5:  # a wall of plastic
        x[body & ~ndimage.binary_erosion(body, iterations=int(rng.integers(1, 4)))] = rng.uniform(-0.2, 0.9)
    for _ in range(rng.integers(0, 16)):
        at = [m + rng.uniform(-0.7, 0.7) * radius for m in middle]
        size = np.exp(rng.uniform(np.log(4), np.log(35), 3))
        inner = _form(rng.choice(["ball", "cylinder", "lying cylinder", "box"]), grid, at, size)
        x[inner & body] = rng.uniform(-1, 1)
    return _scanned(x, rng)


def head(rng: Rng) -> np.ndarray:
    """A head in CT or MR: scalp, skull, brain of two or three tissues, ventricles, a face with cavities, a neck."""
    wide = rng.uniform(0, 160) if rng.random() < 0.3 else 0.0  # a head in the field of view of a body
    shape = tuple(int(rng.uniform(*mm) / 3) for mm in ((150, 260), (190 + wide, 260 + wide), (170 + wide, 240 + wide)))
    grid = _bent(_millimetres(shape), rng)
    half = np.array((rng.uniform(66, 80), rng.uniform(82, 100), rng.uniform(66, 82)))  # of the skull, S A R
    crown = (shape[0] * 1.5 - half[0] - rng.uniform(5, 25), 0.0, 0.0)
    scalp, bone = rng.uniform(4, 9), rng.uniform(4, 9)
    ct = rng.random() < 0.5
    tissue = dict.fromkeys(("soft", "bone", "grey", "white", "fluid", "fat"), 0.0)
    if ct:
        tissue |= {"soft": 0.15, "bone": 0.95, "grey": 0.13, "white": 0.07, "fluid": 0.02, "fat": -0.2}
        tissue = {k: v + rng.normal(0, 0.05) for k, v in tissue.items()}
    else:
        tissue = {k: rng.uniform(-0.8, 1.0) for k in tissue} | {"bone": rng.uniform(-0.98, -0.6)}
    x = np.full(shape, -1.0)
    below = grid[0] < crown[0] - 0.3 * half[0]
    face = _form("ball", grid, (crown[0] - half[0], 0.45 * half[1], 0), half * (0.85, 0.62, 0.78))
    neck = _form("cylinder", grid, (0, -12, 0), np.array((1, rng.uniform(50, 64), rng.uniform(50, 62))))
    x[(neck & below) | (face & below)] = tissue["soft"]
    fat = ndimage.gaussian_filter(rng.standard_normal(shape), 3)
    x[((neck & below) | (face & below)) & (fat > 0.5 * fat.std())] = tissue["fat"]
    x[_form("ball", grid, crown, half + scalp)] = tissue["fat"]
    x[_form("ball", grid, crown, half + scalp * 0.5)] = tissue["soft"]
    x[_form("ball", grid, crown, half)] = tissue["bone"]
    brain = _form("ball", grid, crown, half - bone)
    x[brain] = tissue["fluid"]
    folds = ndimage.gaussian_filter(rng.standard_normal(shape), rng.uniform(1.2, 2.5))
    depth = _distance(grid, crown, half - bone)
    x[brain & (depth < 0.96) & (folds > -folds.std())] = tissue["grey"]
    x[brain & (depth < 0.85 + 0.08 * folds / folds.std())] = tissue["white"]
    x[brain & (np.abs(grid[2]) < 1.5) & (grid[0] > crown[0] + 10)] = tissue["fluid"]
    for side in (-1, 1):
        x[_form("ball", grid, (crown[0] + 8, -5, side * 12), np.array((9, 30, 6)))] = tissue["fluid"]
        x[_form("ball", grid, (crown[0] - 0.62 * half[0], 0.8 * half[1], side * 32), np.full(3, 12))] = tissue["fluid"]
        x[_form("ball", grid, (crown[0] - 1.05 * half[0], 0.72 * half[1], side * 28), np.array((16, 14, 14)))] = -1.0
    x[_form("cylinder", grid, (0, -30, 0), np.array((1, 16, 16))) & below & neck] = tissue["bone"]
    x[_form("cylinder", grid, (0, 18, 0), np.array((1, 9, 9))) & below & neck] = -1.0
    return _scanned(x, rng, ct)


def limb(rng: Rng) -> np.ndarray:
    """One or two arms or legs: muscle, a sleeve of fat, one or two bones with marrow."""
    shape = (int(rng.integers(16, 120)), int(rng.integers(50, 90)), int(rng.integers(60, 128)))
    grid = _bent(_millimetres(shape), rng)
    ct = rng.random() < 0.6
    muscle, fat, bone, marrow = (
        (0.15, -0.22, 0.98, 0.2) if ct else (*rng.uniform(-0.8, 1, 2), rng.uniform(-0.98, -0.6), rng.uniform(-0.5, 1))
    )
    x = np.full(shape, -1.0)
    radius = rng.uniform(35, 75)
    two = rng.random() < 0.5
    for side in (-1, 1) if two else (0,):
        at = (0, 0, side * (radius + rng.uniform(4, 40)))
        flat = np.array((1, radius * rng.uniform(0.85, 1.15), radius))
        x[_form("cylinder", grid, at, flat)] = fat
        x[_form("cylinder", grid, at, flat - rng.uniform(5, 14))] = muscle
        bones = rng.integers(1, 3)
        for number in range(bones):
            where = (0, rng.uniform(-10, 10), at[2] + (number - (bones - 1) / 2) * 30)
            thick = rng.uniform(9, 17)
            x[_form("cylinder", grid, where, np.array((1, thick, thick)))] = bone
            x[_form("cylinder", grid, where, np.array((1, thick - 5, thick - 5)))] = marrow
    return _scanned(x, rng, ct)


def shuffled(x: np.ndarray, rng: Rng) -> np.ndarray:
    """The blocks of a body in another order: right in every detail, wrong as a whole."""
    edge = int(rng.choice([8, 12, 16, 24]))
    edges = [min(edge, n) for n in x.shape]
    x = x[tuple(slice(n // e * e) for n, e in zip(x.shape, edges, strict=True))]
    (d, h, w), (a, b, c) = (n // e for n, e in zip(x.shape, edges, strict=True)), edges
    blocks = x.reshape(d, a, h, b, w, c).transpose(0, 2, 4, 1, 3, 5).reshape(-1, a, b, c)
    blocks = rng.permutation(blocks)
    return np.ascontiguousarray(blocks.reshape(d, h, w, a, b, c).transpose(0, 3, 1, 4, 2, 5).reshape(x.shape))


KINDS: dict[str, Callable[[Rng], np.ndarray]] = {
    "head": head,
    "noise": noise,
    "phantom": phantom,
    "limb": limb,
    "empty room": empty_room,
}
"""What is made from rules alone."""

SHUFFLED = "shuffled"
OTHERS = (*KINDS, SHUFFLED)


def _shape(rng: Rng) -> tuple[int, int, int]:
    return int(rng.integers(16, 120)), int(rng.integers(56, 128)), int(rng.integers(56, 140))


def _millimetres(shape: tuple[int, int, int]) -> np.ndarray:
    """(3, D, H, W): S, A, R in mm from the middle, voxels of 3 mm."""
    return np.stack(np.meshgrid(*[(np.arange(n) - (n - 1) / 2) * 3 for n in shape], indexing="ij"))


def _bent(grid: np.ndarray, rng: Rng) -> np.ndarray:
    """Turned by up to 15 degrees about each axis, and wavy by some mm: nothing is a perfect ellipsoid."""
    angles = np.radians(rng.uniform(-15, 15, 3))
    turned = grid.copy()
    for (a, b), angle in zip(((0, 1), (0, 2), (1, 2)), angles, strict=True):
        turned[a], turned[b] = (
            np.cos(angle) * turned[a] - np.sin(angle) * turned[b],
            np.sin(angle) * turned[a] + np.cos(angle) * turned[b],
        )
    for axis in range(3):
        wave = ndimage.zoom(rng.standard_normal((4, 4, 4)), [n / 4 for n in grid.shape[1:]], order=1)
        turned[axis] += 5 * wave[tuple(slice(n) for n in grid.shape[1:])]
    return turned


def _distance(grid: np.ndarray, centre: Sequence[float], half: np.ndarray) -> np.ndarray:
    return np.sqrt(sum(((g - c) / h) ** 2 for g, c, h in zip(grid, centre, half, strict=True)))


def _form(form: str, grid: np.ndarray, centre: Sequence[float], half: np.ndarray) -> np.ndarray:
    """bool (D, H, W): a ball, a cylinder along S, one along R ("lying"), or a box, with half extents in mm."""
    away = [np.abs(g - c) / h for g, c, h in zip(grid, centre, half, strict=True)]
    if form == "ball":
        return away[0] ** 2 + away[1] ** 2 + away[2] ** 2 <= 1
    if form == "cylinder":
        return away[1] ** 2 + away[2] ** 2 <= 1
    if form == "lying cylinder":
        return (away[0] ** 2 + away[1] ** 2 <= 1) & (away[2] <= 2)
    return (away[0] <= 1) & (away[1] <= 1) & (away[2] <= 1)


def _scanned(x: np.ndarray, rng: Rng, ct: bool | None = None) -> np.ndarray:
    """Blurred edges, texture inside, a bias field where it is no CT, and noise."""
    ct = rng.random() < 0.5 if ct is None else ct
    air = x <= -1
    grain = ndimage.gaussian_filter(rng.standard_normal(x.shape), rng.uniform(0.5, 2.5))
    x = x + np.where(air, 0, grain / grain.std() * rng.uniform(0.005, 0.06))
    x = ndimage.gaussian_filter(x, rng.uniform(0.3, 0.9))
    if not ct:
        field = ndimage.zoom(rng.standard_normal((3, 3, 3)), [n / 3 for n in x.shape], order=1)
        x = (x + 1) * np.exp(rng.uniform(0, 0.3) * field[tuple(slice(n) for n in x.shape)]) - 1
    return _clipped(x + rng.standard_normal(x.shape) * rng.uniform(0, 0.08))


def _clipped(x: np.ndarray) -> np.ndarray:
    return np.clip(x, -1, 1).astype(np.float32)
