"""The canvas a procedural trunk is painted on: warped body coordinates, implicit shapes, and a tissue map.

Body coordinates are millimetres of a standard adult: x to the right of the patient, y to the front, z to the head; the
origin is the centre of the L5-S1 end plate. Every voxel knows the body coordinates it shows, so one smooth warp bends
all structures alike and no label map is ever resampled. Shapes are signed distances in mm, negative inside, computed
on the box of voxels they may touch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from scipy.interpolate import PchipInterpolator

from .palette import Palette

NOISE_SPARE = 24
"""Voxels by which the noise is larger than the canvas, so that every shape gets a part of its own."""
NOISE_LIMIT = 2.5
"""Noise is clipped there, so that a rough shape keeps to its box."""


@dataclass(frozen=True, eq=False)
class Shape:
    """A shape on its box: ``box`` three slices (D, H, W), ``distance`` float32 in mm on it, negative inside."""

    box: tuple[slice, slice, slice]
    distance: np.ndarray

    @property
    def inside(self) -> np.ndarray:
        return self.distance < 0

    def intersect(self, other: np.ndarray) -> Shape:
        """``other``: a distance on this box."""
        return Shape(self.box, np.maximum(self.distance, other))


def smooth_noise(rng: np.random.Generator, shape: Sequence[int], correlation: float) -> np.ndarray:
    """(D, H, W) float32 of about unit variance that varies over ``correlation`` voxels."""
    coarse = rng.standard_normal([int(n / correlation) + 3 for n in shape]).astype(np.float32)
    fine = ndimage.zoom(coarse, 3, order=3)
    fine = F.interpolate(torch.from_numpy(fine)[None, None], size=tuple(shape), mode="trilinear", align_corners=True)
    return (fine[0, 0] / fine.std()).numpy()


class Canvas:
    """Body coordinates of every voxel and what has been painted so far.

    x, y, z: (D, H, W) float32, mm. tissue: (D, H, W) uint8. Shapes are drawn with `rng`, so the order of calls counts.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        shape: tuple[int, int, int],
        spacing: Sequence[float],
        origin: Sequence[float],
        palette: Palette,
        warp_mm: float = 6.0,
        bend: Sequence[Sequence[float]] = (),
    ) -> None:
        """spacing, origin: mm of the standard body along (z, y, x) a voxel, and at voxel 0.

        warp_mm: standard deviation of the smooth warp. bend: curves (D,) in mm: what to add to z, and the spine's
        shift along y and along x, which fades towards the front of the belly.
        """
        self.rng, self.shape, self.palette = rng, shape, palette
        self.spacing, self.origin = np.asarray(spacing, np.float32), np.asarray(origin, np.float32)
        axes = [o + s * np.arange(n, dtype=np.float32) for o, s, n in zip(origin, spacing, shape, strict=True)]
        straight = np.meshgrid(*axes, indexing="ij", sparse=True)
        self.shift = [warp_mm * smooth_noise(rng, shape, 34) for _ in range(3)]
        front = np.clip((straight[1] - 25) / 95, 0, 1)
        longer, *curves = (np.asarray(c, np.float32)[:, None, None] for c in bend or ([0.0],) * 3)
        self.shift[0] += longer
        for axis, bent in zip((1, 2), curves, strict=True):
            self.shift[axis] -= bent * (1 - front**2 * (3 - 2 * front))
        self.z, self.y, self.x = (s + u for s, u in zip(straight, self.shift, strict=True))
        larger = [n + NOISE_SPARE for n in shape]
        self._noise = [np.clip(smooth_noise(rng, larger, c), -NOISE_LIMIT, NOISE_LIMIT) for c in (7, 13)]
        self.tissue = np.full(shape, palette["air"], np.uint8)

    def voxel(self, points: np.ndarray) -> np.ndarray:
        """Body points (N, 3) as (x, y, z) mm -> voxel coordinates (N, 3) as (D, H, W), by fixed-point iteration."""
        body = points[:, ::-1].astype(np.float32)
        found = body.copy()
        top = np.array(self.shape) - 1
        for _ in range(5):
            index = np.clip(np.rint((found - self.origin) / self.spacing), 0, top).astype(int)
            found = body - np.stack([u[tuple(index.T)] for u in self.shift], 1)
        return (found - self.origin) / self.spacing

    def box(self, low: Sequence[float], high: Sequence[float]) -> tuple[slice, slice, slice]:
        """The voxels that show the body's box (x, y, z) mm from ``low`` to ``high``; at least one a side."""
        steps = [np.linspace(a, b, 5) for a, b in zip(low, high, strict=True)]
        corners = self.voxel(np.stack(np.meshgrid(*steps, indexing="ij"), -1).reshape(-1, 3))
        first = np.floor(corners.min(0)).astype(int) - 2
        last = np.ceil(corners.max(0)).astype(int) + 3
        cut = [(min(max(a, 0), n - 1), n, b) for a, b, n in zip(first, last, self.shape, strict=True)]
        return tuple(slice(a, min(max(b, a + 1), n)) for a, n, b in cut)

    def whole(self) -> tuple[slice, slice, slice]:
        return tuple(slice(0, n) for n in self.shape)

    def noise(self, box: tuple[slice, slice, slice], fine: bool = False) -> np.ndarray:
        """Unit smooth noise on ``box``, another part of it at each call; it varies over some 40 mm, or 20 if fine."""
        field = self._noise[0 if fine else 1]
        offset = self.rng.integers(0, NOISE_SPARE, 3)
        return field[tuple(slice(s.start + o, s.stop + o) for s, o in zip(box, offset, strict=True))]

    def ellipsoid(
        self, centre: Sequence[float], radii: Sequence[float], turn: Sequence[float] = (0, 0, 0), rough: float = 0.0
    ) -> Shape:
        """turn: degrees about x, then y, then z. rough: mm of smooth noise on the surface."""
        reach = max(radii) + NOISE_LIMIT * rough if any(turn) else np.asarray(radii) + NOISE_LIMIT * rough
        box = self.box(np.subtract(centre, reach), np.add(centre, reach))
        rx, ry, rz = np.radians(turn)
        cx, sx, cy, sy, cz, sz = np.cos(rx), np.sin(rx), np.cos(ry), np.sin(ry), np.cos(rz), np.sin(rz)
        about = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]]) @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        about = about @ np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
        d = [f[box] - np.float32(c) for f, c in zip((self.x, self.y, self.z), centre, strict=True)]
        square = 0
        for column, radius in zip(about.T.astype(np.float32), radii, strict=True):
            square = square + ((column[0] * d[0] + column[1] * d[1] + column[2] * d[2]) / np.float32(radius)) ** 2
        unit = np.sqrt(square)
        length = np.sqrt(d[0] ** 2 + d[1] ** 2 + d[2] ** 2)
        distance = length * (1 - 1 / np.maximum(unit, 1e-3))
        if rough:
            distance = distance + rough * self.noise(box)
        return Shape(box, distance)

    def column(self, knots: Sequence[Sequence[float]], power: float = 2.0, rough: float = 0.0) -> Shape:
        """A shape given by its axial sections: rows (z, centre x, centre y, half width, half depth), z ascending.

        power: 2 for ellipses, more for boxier sections. Flat ends.
        """
        table = np.asarray(knots, np.float32)
        half = table[:, 3:5] + NOISE_LIMIT * rough
        low = [(table[:, 1] - half[:, 0]).min(), (table[:, 2] - half[:, 1]).min(), table[0, 0]]
        high = [(table[:, 1] + half[:, 0]).max(), (table[:, 2] + half[:, 1]).max(), table[-1, 0]]
        box = self.box(low, high)
        z = self.z[box]
        cx, cy, a, b = (np.interp(z, table[:, 0], table[:, k]).astype(np.float32) for k in range(1, 5))
        dx, dy = self.x[box] - cx, self.y[box] - cy
        if power == 2:
            unit = np.sqrt((dx / a) ** 2 + (dy / b) ** 2)
        else:
            unit = (np.abs(dx / a) ** power + np.abs(dy / b) ** power) ** (1 / power)
        distance = np.hypot(dx, dy) * (1 - 1 / np.maximum(unit, 1e-3))
        if rough:
            distance = distance + rough * self.noise(box)
        return Shape(box, np.maximum(distance, np.maximum(table[0, 0] - z, z - table[-1, 0])))

    def balls(self, points: np.ndarray, radii: np.ndarray | float, spare: float = 0.0) -> Shape:
        """Union of balls: points (N, 3) as (x, y, z) mm. Distances are right up to ``spare`` mm outside."""
        radii = np.broadcast_to(np.asarray(radii, np.float32), len(points))
        at = self.voxel(points)
        reach = (radii[:, None] + spare) / self.spacing * 1.15 + 1
        first = np.clip(np.floor(at - reach).astype(int), 0, np.array(self.shape) - 1)
        last = np.clip(np.ceil(at + reach).astype(int) + 1, first + 1, self.shape)
        low, high = first.min(0), last.max(0)
        box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        x, y, z = self.x[box], self.y[box], self.z[box]
        distance = np.full(x.shape, 1e3, np.float32)
        for point, radius, a, b in zip(points.astype(np.float32), radii, first - low, last - low, strict=True):
            at = (slice(a[0], b[0]), slice(a[1], b[1]), slice(a[2], b[2]))
            square = (x[at] - point[0]) ** 2
            square += (y[at] - point[1]) ** 2
            square += (z[at] - point[2]) ** 2
            np.sqrt(square, out=square)
            square -= radius
            np.minimum(distance[at], square, out=distance[at])
        return Shape(box, distance)

    def tube(self, points: np.ndarray, radii: Sequence[float] | float, step: float = 3.0, spare: float = 0.0) -> Shape:
        """A tube along a smooth curve through ``points`` (N, 3), mm; ``radii``: one, or one a point."""
        line, radius = curve(points, radii, step)
        return self.balls(line, radius, spare)

    def paint(self, name: str, shape: Shape, over: np.ndarray | None = None) -> np.ndarray:
        """Paint the inside of ``shape``; where ``over`` (a mask on its box) holds, if given. Returns the mask."""
        mask = shape.inside if over is None else shape.inside & over
        self.tissue[shape.box][mask] = self.palette[name]
        return mask

    def is_any(self, box: tuple[slice, slice, slice], *names: str) -> np.ndarray:
        """Where ``box`` now shows one of the tissues ``names``."""
        table = np.zeros(256, bool)
        table[[self.palette[n] for n in names]] = True
        return table[self.tissue[box]]


def curve(points: np.ndarray, radii: Sequence[float] | float, step: float) -> tuple[np.ndarray, np.ndarray]:
    """A smooth curve through ``points`` (N, 3) sampled each ``step`` mm: (M, 3) and its radii (M,)."""
    points = np.asarray(points, np.float64)
    radii = np.broadcast_to(np.asarray(radii, np.float64), len(points))
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1) + 1e-6)])
    count = max(2, int(length[-1] / step) + 1)
    t = np.linspace(0, length[-1], count)
    if len(points) < 3:
        line = np.stack([np.interp(t, length, p) for p in points.T], 1)
    else:
        line = PchipInterpolator(length, points)(t)
    return line, np.interp(t, length, radii)


def largest(mask: np.ndarray) -> np.ndarray:
    """The largest part of ``mask`` (D, H, W) bool that hangs together by faces."""
    parts, count = ndimage.label(mask)
    return mask if count < 2 else parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
