"""Labels to one closed mesh a structure, and to the cloud of their boundary voxels: metres, RAS+, patient frame."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock

import fast_simplification
import numpy as np
from scipy.ndimage import find_objects

from threedme_ros.anatomy import Anatomy
from threedme_ros.geometry.contour import (
    FINE_FACES,
    LATTICE_SHARE,
    VOXEL_FACE_EXCESS,
    averaged,
    contour,
    contour_of_volume,
    is_closed,
    lattice_for,
    signed_volume,
    unpinched,
    without_islands,
)
from threedme_ros.geometry.crew import meshes_crew
from threedme_ros.geometry.lattice import Lattice, boundary, one_per_cell
from threedme_ros.volume import Volume

MAX_FACES = 5000
MIN_VOLUME_ML = 0.1
LEAST_FACES = 100
COARSER = 1.1
"""How much coarser the lattice gets when no simplification of it fits; each time the square of the time before."""
_SIMPLIFIER = Lock()  # fast_simplification keeps its mesh in globals and lets go of the GIL


@dataclass(frozen=True, eq=False)
class Mesh:
    """A closed surface: ``vertices`` (V, 3) float32 m, RAS+; ``faces`` (F, 3) int32, wound outward."""

    vertices: np.ndarray
    faces: np.ndarray

    @property
    def volume_ml(self) -> float:
        """Enclosed volume, positive for outward winding."""
        return signed_volume(self.vertices.astype(np.float64), self.faces) * 1e6


@dataclass(frozen=True, eq=False)
class PointCloud:
    """``points`` (N, 3) float32 m, RAS+; ``labels`` (N,) uint8; ``confidence`` (N,) uint8, 255 is certain."""

    points: np.ndarray
    labels: np.ndarray
    confidence: np.ndarray

    def __len__(self) -> int:
        return len(self.points)


def surface_meshes(
    labels: Volume, anatomy: Anatomy, *, max_faces: int = MAX_FACES, min_volume_ml: float = MIN_VOLUME_ML
) -> dict[str, Mesh]:
    """One mesh for each structure of ``anatomy`` that is present, by name, in the table's order.

    Every mesh is watertight, wound outward, has at most ``max_faces`` faces, and encloses the structure's volume;
    shells (islands, inner cavities) below ``min_volume_ml`` are dropped, and a structure of nothing else with them.
    labels: (I, J, K) integer, on any affine. Raises ValueError for fewer than 100 faces.
    """
    if max_faces < LEAST_FACES:
        raise ValueError(f"max_faces {max_faces}: expected at least {LEAST_FACES}")
    lattice = Lattice.of(labels)
    boxes = find_objects(lattice.voxels, max_label=anatomy.num_classes - 1)
    present = [(s.name, s.id, boxes[s.id - 1]) for s in anatomy if boxes[s.id - 1] is not None]

    def build(item: tuple) -> Mesh | None:
        _, label, box = item
        return _mesh(lattice, box, label, max_faces, min_volume_ml)

    slowest_first = sorted(present, key=lambda item: -np.prod([b.stop - b.start for b in item[2]]))
    built = meshes_crew().map(build, slowest_first)
    meshes = dict(zip([item[0] for item in slowest_first], built, strict=True))
    return {name: meshes[name] for name, _, _ in present if meshes[name] is not None}


def _mesh(lattice: Lattice, box: tuple[slice, ...], label: int, max_faces: int, min_volume_ml: float) -> Mesh | None:
    mask = lattice.voxels[box] == label
    grid = lattice.grid
    least_voxels = min_volume_ml / grid.voxel_volume_ml
    count = int(np.count_nonzero(mask))
    if count < least_voxels:
        return None
    spacing = np.array(grid.spacing_mm)
    area = voxel_face_area(mask, spacing) / VOXEL_FACE_EXCESS
    # An affine that mirrors turns the winding inside out.
    mirrored = np.linalg.det(lattice.affine[:3, :3]) < 0
    corner = np.array([b.start for b in box])

    def placed(vertices: np.ndarray, faces: np.ndarray) -> Mesh:
        return Mesh(lattice.to_metres(vertices + corner), np.ascontiguousarray(faces[:, ::-1] if mirrored else faces))

    thickness_mm = 2 * count * grid.voxel_volume_ml * 1000 / area
    coarse, fine = (lattice_for(area, share * max_faces) for share in FINE_FACES)
    lattice_mm = float(np.clip(LATTICE_SHARE * thickness_mm, fine, coarse))
    growth = COARSER
    while True:
        occupancy = averaged(mask, spacing, lattice_mm)
        vertices, faces = contour_of_volume(occupancy, count)
        if not len(faces) and growth == COARSER:  # thinner than the averaging keeps: the voxels as they are
            vertices, faces = contour(averaged(mask, spacing, 0.0, 1.0), 0.5)
        elif not len(faces):  # of which even the simplest surface has too many faces: where most of it is
            vertices, faces = contour(occupancy, float(occupancy.share.max()) / 2)
        if len(faces) > max_faces:
            vertices, faces = simplified(vertices, faces, spacing, max_faces)
        if len(faces) <= max_faces:
            vertices, faces = without_islands(vertices, faces, least_voxels)
            return placed(vertices, faces) if len(faces) else None
        # Simplification left a pinched edge in every attempt: a coarser contour needs none, and is always closed.
        lattice_mm = max(lattice_mm, lattice_for(area, max_faces)) * growth
        growth **= 2  # labels like noise have more shells than faces are allowed: do not creep up on them


def simplified(
    vertices: np.ndarray, faces: np.ndarray, spacing_mm: np.ndarray, max_faces: int
) -> tuple[np.ndarray, np.ndarray]:
    """Quadric edge collapse, in mm, to at most ``max_faces``; the input again if no attempt stays watertight.

    The collapse does not test the link condition, so now and then it pinches a thin part into an edge of four faces;
    another order of collapses (``agg``) mostly avoids it.
    """
    scaled = (vertices * spacing_mm).astype(np.float32)
    for agg, target in ((8, 1.0), (6, 0.98), (10, 0.95), (5, 0.9)):
        with _SIMPLIFIER:
            fewer, kept = fast_simplification.simplify(scaled, faces, target_count=int(target * max_faces), agg=agg)
        fewer, kept = unpinched(np.asarray(fewer, np.float64), np.asarray(kept, np.int32))
        if len(kept) <= max_faces and is_closed(kept):
            return fewer / spacing_mm, kept
    return vertices, faces


def voxel_face_area(mask: np.ndarray, spacing_mm: np.ndarray) -> float:
    """mm^2 of the voxel faces between inside and outside, those on the box's border included."""
    area = 0.0
    for axis in range(3):
        lines = np.moveaxis(mask, axis, 0)
        faces = np.count_nonzero(lines[1:] != lines[:-1]) + np.count_nonzero(lines[0]) + np.count_nonzero(lines[-1])
        area += faces * np.prod(np.delete(spacing_mm, axis))
    return float(area)


def surface_points(
    labels: Volume,
    confidence: Volume | None,
    anatomy: Anatomy,
    *,
    min_confidence: int = 0,
    voxel_size_m: float = 0.0,
) -> PointCloud:
    """One point a boundary voxel (a face neighbour has another label), at the mean of its exposed faces' centres.

    confidence: (I, J, K) uint8 on the labels' grid; points below ``min_confidence`` (0..255) are left out; None is
    255 everywhere. voxel_size_m: where positive, at most one point a structure in each cube of this edge.
    """
    lattice = Lattice.of(labels)
    known = np.zeros(256, np.uint8)
    ids = [s.id for s in anatomy]
    known[ids] = ids
    found = boundary(lattice.voxels.astype(np.uint8, copy=False))
    keep = known[found.value] > 0
    certain = np.full(len(keep), 255, np.uint8)
    if confidence is not None:
        certain = lattice.alongside(confidence)[tuple(found.index.T)].astype(np.uint8, copy=False)
        keep &= certain >= min_confidence
    cloud = PointCloud(lattice.to_metres(found.surface[keep]), found.value[keep], certain[keep])
    if voxel_size_m <= 0 or not len(cloud):
        return cloud
    chosen = one_per_cell(cloud.points, voxel_size_m, cloud.labels)
    return PointCloud(cloud.points[chosen], cloud.labels[chosen], cloud.confidence[chosen])
