"""A small software renderer for closed meshes and point clouds: z-buffer, smooth shading, ambient occlusion.

Why not VTK's: its wheel looks for libEGL or libOSMesa when it renders, and a machine with only Python has neither. This
needs numpy and SciPy, gives the same picture everywhere, and draws 80,000 triangles in about a second.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, zoom

OVERSAMPLING = 2
FAR = np.float32(1e9)
_CHUNK = 1 << 21  # candidate pixels at a time
KEY, FILL, RIM = (-0.45, 0.65, -0.75), (0.8, 0.1, -0.5), (0.1, 0.5, 0.9)  # towards the light: right, up, away


@dataclass(frozen=True)
class Camera:
    """Orthographic. ``towards`` (3,): from the eye into the scene, ``up`` (3,): RAS+ directions."""

    towards: tuple[float, float, float]
    up: tuple[float, float, float] = (0.0, 0.0, 1.0)

    @property
    def rotation(self) -> np.ndarray:
        """(3, 3): rows are the picture's right, its up, and away from the eye, in RAS+."""
        away = np.array(self.towards, float) / np.linalg.norm(self.towards)
        right = np.cross(away, self.up)
        right /= np.linalg.norm(right)
        return np.stack([right, np.cross(right, away), away])


@dataclass(frozen=True, eq=False)
class Frame:
    """The view of ``camera``: ``centre`` (3,) at the middle of ``size`` (rows, columns), at ``per_metre`` pixels."""

    camera: Camera
    centre: np.ndarray
    size: tuple[int, int]
    per_metre: float

    def project(self, points: np.ndarray, scale: float = 1.0) -> np.ndarray:
        """(N, 3) m -> (N, 3) float32: column, row, depth, all in pixels of ``scale`` times the frame."""
        seen = (points - self.centre) @ self.camera.rotation.T * (self.per_metre * scale)
        rows, columns = (n * scale for n in self.size)
        return np.stack([seen[:, 0] + columns / 2, rows / 2 - seen[:, 1], seen[:, 2]], 1).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Solid:
    """A closed mesh: ``vertices`` (V, 3) m, ``faces`` (F, 3) wound outward; ``colour`` (3,) in 0..1."""

    vertices: np.ndarray
    faces: np.ndarray
    colour: np.ndarray


@dataclass(frozen=True, eq=False)
class Balls:
    """``points`` (N, 3) m drawn as balls of ``radius_m``; ``colours`` (N, 3) in 0..1."""

    points: np.ndarray
    colours: np.ndarray
    radius_m: float


class _Buffer:
    """Nearest depth (rows * columns,) float32, the normal there (.., 3) and the colour (.., 3)."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        n = size[0] * size[1]
        self.depth = np.full(n, FAR, np.float32)
        self.normal = np.zeros((n, 3), np.float32)
        self.colour = np.zeros((n, 3), np.float32)

    def put(self, pixel: np.ndarray, depth: np.ndarray, normal: np.ndarray, colour: np.ndarray) -> None:
        """Candidates (N,): each pixel keeps the nearest."""
        np.minimum.at(self.depth, pixel, depth)
        won = depth <= self.depth[pixel]
        pixel = pixel[won]
        self.normal[pixel], self.colour[pixel] = normal[won], colour[won]


def render(things: list[Solid | Balls], frame: Frame) -> np.ndarray:
    """(rows, columns, 4) float32 RGBA, sRGB 0..1, straight alpha."""
    buffer = _Buffer(tuple(n * OVERSAMPLING for n in frame.size))
    for thing in things:
        (_draw_solid if isinstance(thing, Solid) else _draw_balls)(buffer, thing, frame)
    return _shaded(buffer, frame)


def _draw_solid(buffer: _Buffer, solid: Solid, frame: Frame) -> None:
    seen = frame.project(solid.vertices, OVERSAMPLING)
    normals = vertex_normals(solid.vertices, solid.faces) @ frame.camera.rotation.T.astype(np.float32)
    corners = seen[solid.faces]
    (x0, y0), (x1, y1), (x2, y2) = (corners[:, i, :2].T for i in range(3))
    twice_area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
    front = twice_area < -1e-6  # rows run down: an outward face towards the eye winds the other way round
    faces, corners, twice_area = solid.faces[front], corners[front], twice_area[front]
    for chosen, x, y in _candidates(corners[:, :, :2].min(1), corners[:, :, :2].max(1), buffer.size):
        c = corners[chosen]
        weights = []
        for i in range(3):
            a, b = c[:, (i + 1) % 3], c[:, (i + 2) % 3]
            weights.append((b[:, 0] - a[:, 0]) * (y - a[:, 1]) - (b[:, 1] - a[:, 1]) * (x - a[:, 0]))
        weights = np.stack(weights, 1) / twice_area[chosen][:, None]
        hit = weights.min(1) >= -1e-4
        weights, f = weights[hit], faces[chosen[hit]]
        depth = (weights * c[hit][:, :, 2]).sum(1)
        normal = np.einsum("ni,nij->nj", weights, normals[f])
        pixel = y[hit].astype(np.int64) * buffer.size[1] + x[hit].astype(np.int64)
        buffer.put(pixel, depth, normal, np.broadcast_to(solid.colour.astype(np.float32), normal.shape))


def _draw_balls(buffer: _Buffer, balls: Balls, frame: Frame) -> None:
    seen = frame.project(balls.points, OVERSAMPLING)
    radius = np.float32(balls.radius_m * frame.per_metre * OVERSAMPLING)
    for chosen, x, y in _candidates(seen[:, :2] - radius, seen[:, :2] + radius, buffer.size):
        right, down = (x - seen[chosen, 0]) / radius, (y - seen[chosen, 1]) / radius
        toward = 1 - right**2 - down**2
        hit = toward > 0
        toward = np.sqrt(toward[hit])
        normal = np.stack([right[hit], -down[hit], -toward], 1)
        depth = seen[chosen[hit], 2] - radius * toward
        pixel = y[hit].astype(np.int64) * buffer.size[1] + x[hit].astype(np.int64)
        buffer.put(pixel, depth, normal, balls.colours[chosen[hit]].astype(np.float32))


def _candidates(
    low: np.ndarray, high: np.ndarray, size: tuple[int, int]
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Pixels in the boxes ``low``..``high`` (N, 2) as (box number, column, row), boxes of like size together."""
    start = np.floor(low).astype(np.int64)
    extent = np.ceil(high).astype(np.int64) - start + 1
    side = np.ceil(1.25 ** np.ceil(np.log(np.maximum(extent.max(1), 2)) / np.log(1.25))).astype(int)
    for edge in np.unique(side):
        boxes = np.flatnonzero(side == edge)
        down, right = (o.ravel() for o in np.divmod(np.arange(edge * edge), edge))
        step = max(1, _CHUNK // (edge * edge))
        for first in range(0, len(boxes), step):
            box = boxes[first : first + step]
            x, y = start[box, :1] + right, start[box, 1:] + down
            inside = (x >= 0) & (x < size[1]) & (y >= 0) & (y < size[0])
            inside &= (right <= extent[box, :1]) & (down <= extent[box, 1:])
            number = np.broadcast_to(box[:, None], x.shape)[inside]
            yield number, x[inside].astype(np.float32), y[inside].astype(np.float32)


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V, 3) float32 unit normals: the area-weighted mean of the faces around."""
    a, b, c = np.moveaxis(vertices.astype(np.float64)[faces], 1, 0)
    face = np.cross(b - a, c - a)
    total = np.stack([np.bincount(faces.ravel(), np.repeat(face[:, k], 3), len(vertices)) for k in range(3)], 1)
    return (total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-20)).astype(np.float32)


def _shaded(buffer: _Buffer, frame: Frame) -> np.ndarray:
    rows, columns = buffer.size
    normal = buffer.normal / np.maximum(np.linalg.norm(buffer.normal, axis=1, keepdims=True), 1e-6)
    hit = (buffer.depth < FAR).reshape(rows, columns)
    light = 0.40 + 0.10 * normal[:, 1]
    for direction, strength in ((KEY, 0.62), (FILL, 0.20), (RIM, 0.12)):
        towards = np.array(direction) / np.linalg.norm(direction)
        light = light + strength * np.clip(normal @ towards, 0, None)
    half = np.array(KEY) / np.linalg.norm(KEY) + [0, 0, -1]
    gleam = 0.20 * np.clip(normal @ (half / np.linalg.norm(half)), 0, 1) ** 28
    linear = buffer.colour**2.2
    open_sky = _openness(buffer.depth.reshape(rows, columns), hit, frame).reshape(-1, 1)
    colour = linear * light[:, None] * open_sky + gleam[:, None] * open_sky
    picture = np.clip(colour, 0, 1).reshape(rows, columns, 3) * hit[..., None]
    blocks = (frame.size[0], OVERSAMPLING, frame.size[1], OVERSAMPLING)
    alpha = hit.reshape(blocks).mean((1, 3), dtype=np.float32)
    premultiplied = picture.reshape(*blocks, 3).mean((1, 3))
    straight = (premultiplied / np.maximum(alpha, 1e-6)[..., None]) ** (1 / 2.2)
    return np.dstack([straight, alpha]).astype(np.float32)


def _openness(depth: np.ndarray, hit: np.ndarray, frame: Frame) -> np.ndarray:
    """(rows, columns) in 0..1: how far a pixel is not sunk below its surroundings, at three scales.

    A screen-space stand-in for ambient occlusion: depth minus its local mean over what was hit.
    """
    small = depth[::2, ::2]
    seen = hit[::2, ::2].astype(np.float32)
    clean = np.where(seen > 0, small, 0)
    pixel_per_m = frame.per_metre * OVERSAMPLING / 2
    result = np.ones(small.shape, np.float32)
    for radius_m, strength in ((0.002, 0.45), (0.007, 0.55), (0.022, 0.60)):
        sigma = radius_m * pixel_per_m
        mean = gaussian_filter(clean, sigma, truncate=2.5) / np.maximum(
            gaussian_filter(seen, sigma, truncate=2.5), 1e-3
        )
        sunk = np.clip((small - mean) / (2.2 * sigma), 0, 1)
        result *= 1 - strength * sunk
    return zoom(result, 2, order=1)[: depth.shape[0], : depth.shape[1]]
