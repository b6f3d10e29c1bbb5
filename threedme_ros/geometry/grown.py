"""One no-go structure as a solid that can be grown: what a planner gets is its surface, moved out by the safety margin.

The grown surface is the level set of an exact distance: on a lattice, the distance in mm to the structure's boundary,
less the margin there, contoured at zero. It is simplified to the faces allowed and then measured at eight points of
each: what lies nearer to the structure than the margin is moved away from it. So few faces are paid for outwards.
Measured at 5,000 faces on a CT of 3 mm: 0.2 to 0.6 mm too far on average for organs, vessels and ribs, 1.2 mm for
colon and vertebrae; between the points measured, 0.1 to 0.7 mm too near at worst.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.ndimage import distance_transform_edt, find_objects, label
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from threedme_ros.anatomy import Structure
from threedme_ros.geometry.contour import (
    VOXEL_FACE_EXCESS,
    Occupancy,
    compacted,
    contour,
    lattice_for,
    tetrahedron_volumes,
)
from threedme_ros.geometry.lattice import THREADS, Lattice
from threedme_ros.geometry.margins import LOW_CONFIDENCE_MM, widening
from threedme_ros.geometry.surface import MAX_FACES, MIN_VOLUME_ML, Mesh, simplified, voxel_face_area
from threedme_ros.volume import MM_PER_M, Grid, Volume, VolumeError, check_spacing

TOLERANCE_MM = 0.1
SAMPLE_MM = 1.25
MAX_SURFACE_POINTS = 1 << 24
"""Of all structures together, `SAMPLE_MM` apart; two square metres at 0.4 mm have as many. They take 100 bytes each."""
FINE_FACES = 3.0  # contoured for each face kept
THIN = 0.35  # the lattice step wanted, of the thickness of what is grown
ATTEMPTS = 3
MOVES = 8
PUSH_MM = 1.0
CERTAIN = 255


@dataclass(frozen=True, eq=False)
class Solid:
    """A structure in one volume. ``mask`` (I, J, K) bool, on ``affine`` (4, 4) to RAS+ mm, empty along its borders.

    ``surface_mm`` (N, 3): points on its exposed voxel faces, about `SAMPLE_MM` apart; ``reach_mm`` (N,): the margin
    there, widened where the confidence is low; ``confidence``: its mean over the boundary, 0 to 1.
    """

    structure: Structure
    mask: np.ndarray
    affine: np.ndarray
    surface_mm: np.ndarray
    reach_mm: np.ndarray
    confidence: float

    @property
    def grid(self) -> Grid:
        return Grid(self.mask.shape, self.affine)

    @cached_property
    def volume_ml(self) -> float:
        return float(np.count_nonzero(self.mask) * self.grid.voxel_volume_ml)

    @cached_property
    def area_mm2(self) -> float:
        """About that of its surface."""
        return voxel_face_area(self.mask, np.array(self.grid.spacing_mm)) / VOXEL_FACE_EXCESS

    @cached_property
    def centre_mm(self) -> np.ndarray:
        """The mean of its voxels' centres, (3,) RAS+ mm."""
        return self.grid.to_mm(np.argwhere(self.mask)).mean(0)

    @cached_property
    def innermost_mm(self) -> np.ndarray:
        """The voxel centre farthest from the surface, (3,) RAS+ mm; inside the structure also where its mean is not."""
        step = max(1, int(np.ceil(max(self.mask.shape) / 96)))  # a coarser look is enough to find the deepest place
        coarse = self.mask[::step, ::step, ::step] if step > 1 else self.mask
        if not coarse.any():
            coarse, step = self.mask, 1
        depth = distance_transform_edt(coarse, sampling=self.grid.spacing_mm)
        return self.grid.to_mm(step * np.array(np.unravel_index(depth.argmax(), coarse.shape))[None])[0]

    def excess_mm(self, points_mm: np.ndarray) -> np.ndarray:
        """(N,) how much farther from the structure than its margin each point (N, 3) RAS+ mm is; negative inside."""
        return self.excess_from(points_mm)[0]

    def excess_from(self, points_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`excess_mm` (N,) and the point (N, 3) of the surface it is measured from."""
        excess = np.full(len(points_mm), np.inf)
        foot = np.zeros((len(points_mm), 3))
        for reach, tree in self._trees:
            away, nearest = tree.query(points_mm, workers=THREADS)
            less = away - reach < excess
            excess[less], foot[less] = away[less] - reach, tree.data[nearest[less]]
        inside = self.holds(points_mm)
        excess[inside] -= 2 * np.linalg.norm(points_mm[inside] - foot[inside], axis=1)
        return excess, foot

    def holds(self, points_mm: np.ndarray) -> np.ndarray:
        """(N,) bool: which points (N, 3) RAS+ mm lie in a voxel of the structure."""
        index = np.rint(self.grid.to_index(points_mm)).astype(int)
        within = ((index >= 0) & (index < self.mask.shape)).all(1)
        within[within] = self.mask[tuple(index[within].T)]
        return within

    @cached_property
    def _trees(self) -> list[tuple[float, cKDTree]]:
        """For each reach in mm, the points of the surface that have it."""
        return [
            (float(r), cKDTree(self.surface_mm[self.reach_mm == r], balanced_tree=False, compact_nodes=False))
            for r in np.unique(self.reach_mm)
        ]


def solids(
    labels: Volume,
    confidence: Volume | None,
    structures: Iterable[Structure],
    *,
    min_volume_ml: float = MIN_VOLUME_ML,
    low_confidence_mm: float = LOW_CONFIDENCE_MM,
) -> dict[str, Solid]:
    """Those of ``structures`` that are in ``labels`` (I, J, K) uint8, by name, without islands below ``min_volume_ml``.

    confidence: (I, J, K) uint8 on the same grid, 255 is certain, or None for certain everywhere.
    Raises VolumeError for a spacing no scanner has, and where their surfaces take more than `MAX_SURFACE_POINTS`.
    """
    check_spacing(labels.spacing_mm)
    structures = list(structures)
    lattice = Lattice.of(labels)
    certain = None if confidence is None else lattice.alongside(confidence)
    boxes = find_objects(lattice.voxels, max_label=max((s.id for s in structures), default=0))
    found, room = {}, MAX_SURFACE_POINTS
    for structure in structures:
        if (box := boxes[structure.id - 1]) is not None:
            solid = _solid(lattice, certain, structure, box, min_volume_ml, low_confidence_mm, room)
            if solid is not None:
                found[structure.name] = solid
                room -= len(solid.surface_mm)
    return found


def _solid(lattice, certain, structure, box, min_volume_ml: float, low_confidence_mm: float, room: int) -> Solid | None:
    mask = _without_islands(lattice.voxels[box] == structure.id, min_volume_ml / lattice.grid.voxel_volume_ml)
    if not mask.any():
        return None
    mask = np.pad(mask, 1)
    corner = np.array([b.start for b in box]) - 1
    affine = np.array(lattice.affine)
    affine[:3, 3] = lattice.grid.to_mm(corner[None])[0]
    grid = Grid(mask.shape, affine)
    surface, voxel = _face_points(mask, np.array(grid.spacing_mm), room)
    share = np.full(len(voxel), CERTAIN, np.uint8) if certain is None else certain[tuple((voxel + corner).T)]
    return Solid(
        structure=structure,
        mask=mask,
        affine=affine,
        surface_mm=grid.to_mm(surface),
        reach_mm=structure.margin_mm + widening(share, low_confidence_mm),
        confidence=float(share.mean() / CERTAIN),
    )


def _face_points(mask: np.ndarray, spacing_mm: np.ndarray, room: int) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 3) in voxel indices, even over every exposed face of ``mask``, and the voxel (N, 3) of each.

    VolumeError if they are more than ``room``.
    """
    parts = np.maximum(1.0, np.ceil(spacing_mm / SAMPLE_MM))
    faces = np.array([np.count_nonzero(mask != np.roll(mask, 1, axis)) for axis in range(3)])
    count = float((faces * parts.prod() / parts).sum())
    if count > room:
        spacing = ", ".join(f"{s:.4g}" for s in spacing_mm)
        raise VolumeError(
            f"voxel spacing ({spacing}) mm: the surface of {np.count_nonzero(mask)} voxels takes {count:.3g} points, "
            f"expected at most {room} of the {MAX_SURFACE_POINTS} for all structures; are the units mm?"
        )
    parts = parts.astype(int)
    along = [(np.arange(n) + 0.5) / n - 0.5 for n in parts]
    points, voxels = [], []
    for axis in range(3):
        across = [np.zeros(1) if a == axis else along[a] for a in range(3)]
        spread = np.stack(np.meshgrid(*across, indexing="ij"), -1).reshape(-1, 3)
        for side in (-1, 1):
            exposed = np.argwhere(mask & ~np.roll(mask, -side, axis))
            spread[:, axis] = side / 2
            points.append((exposed[:, None] + spread).reshape(-1, 3))
            voxels.append(np.repeat(exposed, len(spread), 0))
    return np.concatenate(points), np.concatenate(voxels)


def _without_islands(mask: np.ndarray, least_voxels: float) -> np.ndarray:
    parts, count = label(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    if (sizes[1:] >= least_voxels).all():
        return mask
    keep = sizes >= least_voxels
    keep[0] = False
    return keep[parts]


def grown_mesh(solid: Solid, extra_mm: float = 0.0, *, max_faces: int = MAX_FACES) -> Mesh:
    """The surface of ``solid`` grown by its margin and ``extra_mm``: closed, wound outward, without inner cavities.

    Metres, RAS+. Raises ValueError for a negative ``extra_mm``.
    """
    if not extra_mm >= 0:
        raise ValueError(f"extra_mm {extra_mm!r}: expected zero or more mm")
    pushed = 0.0
    for _ in range(ATTEMPTS):
        vertices, faces = _level_set(solid, extra_mm + pushed, max_faces)
        vertices, missing = _moved_out(solid, vertices, faces, extra_mm)
        if missing <= TOLERANCE_MM:
            break
        pushed += min(missing, PUSH_MM)
    if np.linalg.det(solid.affine[:3, :3]) < 0:
        faces = faces[:, ::-1]
    return Mesh((vertices / MM_PER_M).astype(np.float32), np.ascontiguousarray(faces))


def _level_set(solid: Solid, extra_mm: float, max_faces: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) mm and at most ``max_faces`` faces where `Solid.excess_mm` is ``extra_mm``."""
    grid, spacing = solid.grid, np.array(solid.grid.spacing_mm)
    reach = float(solid.reach_mm.max()) + extra_mm
    area = solid.area_mm2
    thickness = 2 * solid.volume_ml * MM_PER_M / area
    area *= 1 + 2 * reach / thickness  # of a tube; a ball's grows more, a plate's less
    fine, coarse = lattice_for(area, FINE_FACES * max_faces), lattice_for(area, max_faces)
    step_mm = float(np.clip(THIN * (thickness + 2 * reach), fine, coarse))
    while True:
        vertices, faces = contour(_occupancy(solid, extra_mm, step_mm), 0.5)
        vertices, faces = _outer_shells(vertices, faces)
        if len(faces) > max_faces:
            vertices, faces = simplified(vertices, faces, spacing, max_faces)
        if len(faces) <= max_faces:
            return grid.to_mm(vertices), faces
        step_mm *= 1.15


def _occupancy(solid: Solid, extra_mm: float, step_mm: float) -> Occupancy:
    """One half where the excess is ``extra_mm``, more inside, linear in mm around it; 0 on the border."""
    grid = solid.grid
    axes, spacing = grid.affine[:3, :3], np.array(grid.spacing_mm)
    stretch = np.linalg.svd(axes / spacing, compute_uv=False)  # of oblique axes: 1, 1, 1
    low_reach, high_reach = solid.reach_mm.min() + extra_mm, solid.reach_mm.max() + extra_mm
    band = 2 * step_mm + float(np.linalg.norm(spacing))
    step = step_mm / spacing
    room = np.ceil((high_reach + band) / stretch[-1] / step_mm).astype(int) + 1
    count = np.ceil((np.array(grid.shape) - 1) / step).astype(int) + 1 + 2 * room
    start = -room * step
    place = [first + s * np.arange(n) for first, s, n in zip(start, step, count, strict=True)]
    near = [np.rint(p).astype(int) for p in place]
    kept = [(n >= 0) & (n < size) for n, size in zip(near, grid.shape, strict=True)]
    mask = np.zeros(tuple(count), bool)
    mask[np.ix_(*kept)] = solid.mask[np.ix_(*(n[k] for n, k in zip(near, kept, strict=True)))]
    # About how far each lattice point is from the structure; in the band around the level it is then measured.
    about = distance_transform_edt(~mask, sampling=step_mm) if mask.any() else np.zeros(mask.shape)
    close = (about * stretch[-1] <= high_reach + band) & (about * stretch[0] >= low_reach - band)
    excess = np.where(about > high_reach, np.inf, -np.inf)
    index = np.argwhere(close)
    points_mm = grid.to_mm(start + index * step)
    excess[close] = solid.excess_mm(points_mm) - extra_mm
    share = np.clip(0.5 - excess / (4 * step_mm), 0.0, 1.0).astype(np.float32)
    return Occupancy(share, start, step)


def _outer_shells(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Without the shells around cavities, which nothing outside can reach."""
    edges = (faces[:, :2].ravel(), faces[:, 1:].ravel())
    joined = coo_matrix((np.ones(2 * len(faces), np.int8), edges), (len(vertices), len(vertices)))
    count, shell = connected_components(joined, directed=False)
    shell_of_face = shell[faces[:, 0]]
    volume = np.bincount(shell_of_face, tetrahedron_volumes(vertices, faces), count)
    return compacted(vertices, faces[volume[shell_of_face] > 0])


def _moved_out(solid: Solid, vertices: np.ndarray, faces: np.ndarray, extra_mm: float) -> tuple[np.ndarray, float]:
    """``vertices`` (V, 3) mm, those whose faces come nearer than ``extra_mm`` allows moved away from the structure.

    Also returns what is missing in the end, in mm.
    """
    short = np.zeros(len(faces))
    away = np.zeros((len(faces), 3))
    changed = np.ones(len(faces), bool)
    best, least = vertices, np.inf
    for _ in range(MOVES):
        a, b, c = np.moveaxis(vertices[faces[changed]], 1, 0)
        inner = [(a + b + c) / 3, *((4 * p + q + r) / 6 for p, q, r in ((a, b, c), (b, c, a), (c, a, b)))]
        samples = np.stack([a, (a + b) / 2, (b + c) / 2, (c + a) / 2, *inner], 1)
        excess, foot = solid.excess_from(samples.reshape(-1, 3))
        excess = excess.reshape(samples.shape[:2])
        worst = np.arange(len(excess)), excess.argmin(1)
        line = samples[worst] - foot.reshape(samples.shape)[worst]
        line /= np.maximum(np.linalg.norm(line, axis=1, keepdims=True), 1e-9)
        line[solid.holds(samples[worst])] *= -1
        short[changed], away[changed] = extra_mm - excess[worst], line
        if short.max() < least:
            best, least = vertices, float(short.max())
        if least <= TOLERANCE_MM:
            break
        order = np.argsort(short)  # of the faces around a vertex, the one that misses most is written last
        move = np.zeros_like(vertices)
        move[faces[order].ravel()] = np.repeat((np.maximum(short, 0.0)[:, None] * away)[order], 3, axis=0)
        vertices = vertices + move
        changed = (move != 0).any(1)[faces].any(1)
    return best, least
