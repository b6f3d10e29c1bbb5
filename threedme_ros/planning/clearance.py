"""How near a tool comes to anatomy, measured by VTK's signed distance: independent of the planner and of Coal."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.spatial import cKDTree
from vtkmodules.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray, vtk_to_numpy
from vtkmodules.vtkCommonCore import vtkDoubleArray, vtkPoints
from vtkmodules.vtkCommonDataModel import vtkCellArray, vtkPolyData
from vtkmodules.vtkFiltersCore import vtkImplicitPolyDataDistance

from threedme_ros.geometry.surface import Mesh
from threedme_ros.planning.tool import Poses, Tool
from threedme_ros.volume import MM_PER_M


def clearances_mm(poses: Poses, tool: Tool, meshes: Mapping[str, Mesh]) -> dict[str, float]:
    """The smallest distance in mm from the tool's surface to each mesh, over all ``poses``; negative inside.

    Meshes are closed and wound outward. Exact at the poses, up to the spine's step of half a millimetre.
    """
    points = poses.spine(tool).reshape(-1, 3)
    return {name: float(_nearest(mesh, points) - tool.radius_m) * MM_PER_M for name, mesh in meshes.items()}


def clearance_along_mm(poses: Poses, tool: Tool, mesh: Mesh, *, up_to_mm: float = 20.0) -> np.ndarray:
    """(N,) mm, the same for each pose; poses certainly farther than ``up_to_mm`` get a lower bound instead."""
    spine = poses.spine(tool, 0.001)
    distance = near_distance(mesh, spine.reshape(-1, 3), up_to_mm / MM_PER_M + tool.radius_m)
    return (distance.reshape(spine.shape[:2]).min(1) - tool.radius_m) * MM_PER_M


def near_distance(mesh: Mesh, points: np.ndarray, up_to_m: float) -> np.ndarray:
    """Signed distance (N,) m of the points (N, 3); beyond ``up_to_m`` of the mesh's bounds, a lower bound of it."""
    distance = _to_bounds(mesh, points)
    near = distance < up_to_m
    if near.any():
        distance[near] = SignedDistance(mesh)(points[near])
    return distance


def _nearest(mesh: Mesh, points: np.ndarray) -> float:
    """m: the smallest signed distance. VTK is slow far away, so only points that can be the nearest are measured.

    The distance to the nearest vertex is too large by at most the longest edge.
    """
    to_vertex = cKDTree(mesh.vertices).query(points)[0]
    edges = mesh.vertices[mesh.faces] - mesh.vertices[np.roll(mesh.faces, 1, axis=1)]
    longest = np.linalg.norm(edges, axis=2).max()
    candidates = (to_vertex <= to_vertex.min() + longest) | (_to_bounds(mesh, points) == 0)
    return float(SignedDistance(mesh)(points[candidates]).min())


def _to_bounds(mesh: Mesh, points: np.ndarray) -> np.ndarray:
    """(N,) m from the points (N, 3) to the mesh's bounding box, 0 inside: at most their distance to the mesh."""
    low, high = mesh.vertices.min(0), mesh.vertices.max(0)
    return np.linalg.norm(np.maximum(np.maximum(low - points, points - high), 0), axis=1)


class SignedDistance:
    """Points (N, 3) m -> their distance (N,) m from a closed mesh that is wound outward, negative inside."""

    def __init__(self, mesh: Mesh) -> None:
        self._function = vtkImplicitPolyDataDistance()
        self._function.SetInput(_poly_data(mesh))

    def __call__(self, points: np.ndarray) -> np.ndarray:
        values = vtkDoubleArray()
        values.SetNumberOfTuples(len(points))
        self._function.FunctionValue(numpy_to_vtk(np.ascontiguousarray(points, np.float64)), values)
        return vtk_to_numpy(values).copy()


def _poly_data(mesh: Mesh) -> vtkPolyData:
    data = vtkPolyData()
    points = vtkPoints()
    points.SetDataTypeToDouble()
    points.SetData(numpy_to_vtk(np.asarray(mesh.vertices, np.float64), deep=True))
    data.SetPoints(points)
    faces = vtkCellArray()
    corners = numpy_to_vtkIdTypeArray(np.ascontiguousarray(mesh.faces, np.int64).ravel(), deep=True)
    offsets = numpy_to_vtkIdTypeArray(np.arange(0, 3 * len(mesh.faces) + 1, 3, dtype=np.int64), deep=True)
    faces.SetData(offsets, corners)
    data.SetPolys(faces)
    return data
