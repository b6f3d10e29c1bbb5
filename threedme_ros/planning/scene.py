"""What the tool may not touch: meshes with their margins in Coal, and the body it must stay in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from threedme_ros.geometry.surface import Mesh
from threedme_ros.planning.tool import Tool
from threedme_ros.volume import MM_PER_M, Volume

INSTALL = "pip install 'threedme_ros[planning]'"


@dataclass(frozen=True, eq=False)
class Obstacle:
    """``mesh`` with the distance the tool's surface keeps from it, ``margin_m``."""

    name: str
    mesh: Mesh
    margin_m: float


class Workspace:
    """Where the tip may be: the set voxels of a body mask, (I, J, K) bool on any affine in mm."""

    def __init__(self, mask: Volume) -> None:
        self.mask = mask.voxels.astype(bool)
        self._to_index = np.linalg.inv(mask.affine)
        corners = np.argwhere(self.mask)
        if not len(corners):
            raise ValueError("empty body mask: expected at least one voxel the tip may be in")
        ends = np.meshgrid(*zip(corners.min(0), corners.max(0), strict=True))
        placed = mask.grid.to_mm(np.stack(ends).reshape(3, -1).T)
        self.low_m, self.high_m = placed.min(0) / MM_PER_M, placed.max(0) / MM_PER_M

    def holds(self, tip_m: np.ndarray) -> bool:
        index = np.rint(self._to_index[:3, :3] @ (tip_m * MM_PER_M) + self._to_index[:3, 3]).astype(int)
        inside = (index >= 0).all() and (index < self.mask.shape).all()
        return bool(inside and self.mask[tuple(index)])


class CollisionScene:
    """Coal's answer to one question: is the tool, here, farther from every obstacle than that one's margin?

    A mesh is its surface: a tool wholly inside one touches nothing. Ask `clearance.clearances` about a start or a goal.
    """

    def __init__(self, obstacles: list[Obstacle], tool: Tool, guard_m: float = 0.0) -> None:
        """guard_m: added to every margin, for what lies between the poses that are asked about."""
        self.tool = tool
        self._coal = coal = coal_module()
        self._capsule = coal.Capsule(tool.radius_m, tool.length_m)
        self._half = tool.length_m / 2
        self._reach = self._half + tool.radius_m
        self._models = []
        for obstacle in obstacles:
            vertices = np.asarray(obstacle.mesh.vertices, np.float64)
            request = coal.CollisionRequest()
            request.security_margin = obstacle.margin_m + guard_m
            self._models.append((_model(coal, vertices, obstacle.mesh.faces), request))
        ends = [(o.mesh.vertices.min(0), o.mesh.vertices.max(0), o.margin_m + guard_m) for o in obstacles]
        self._low = np.array([low - margin for low, _, margin in ends]).reshape(-1, 3)
        self._high = np.array([high + margin for _, high, margin in ends]).reshape(-1, 3)
        self._still = coal.Transform3s.Identity()
        self._placed = coal.Transform3s.Identity()

    def is_free(self, tip: np.ndarray, rotation: np.ndarray) -> bool:
        """tip (3,) m; rotation (3, 3): its third column is the axis from tail to tip."""
        middle = tip - self._half * rotation[:, 2]
        near = ((middle + self._reach > self._low) & (middle - self._reach < self._high)).all(1)
        if not near.any():
            return True
        self._placed.setTranslation(middle)
        self._placed.setRotation(rotation)
        for number in np.flatnonzero(near):
            model, request = self._models[number]
            result = self._coal.CollisionResult()
            if self._coal.collide(model, self._still, self._capsule, self._placed, request, result):
                return False
        return True


def _model(coal, vertices: np.ndarray, faces: np.ndarray):
    model = coal.BVHModelOBBRSS()
    model.beginModel(len(faces), len(vertices))
    model.addVertices(vertices)
    model.addTriangles(np.asarray(faces, np.int64))
    model.endModel()
    return model


def coal_module():
    try:
        import coal
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"collision checking needs the package coal: {INSTALL}") from error
    return coal
