"""Changes of the planning scene -> moveit_msgs. Metres, in the patient frame; MoveIt applies TF when it takes them.

moveit_msgs is imported where it is used: without it, the package works but for this.
"""

from __future__ import annotations

import numpy as np
from geometry_msgs.msg import Point, Pose
from shape_msgs.msg import Mesh as MeshMessage
from shape_msgs.msg import MeshTriangle, SolidPrimitive
from std_msgs.msg import ColorRGBA

from threedme_ros.anatomy import Structure
from threedme_ros.geometry.grown import grown_mesh
from threedme_ros.geometry.surface import Mesh
from threedme_ros.nodes.shapes import MARKER_ALPHA
from threedme_ros.scene.keeper import Operation
from threedme_ros.scene.look import TARGETS, Targets
from threedme_ros.scene.plan import Job
from threedme_ros.volume import MM_PER_M

SPECK_M = 0.0001
"""Radius of the ball that carries the targets' frames: MoveIt takes no object without a shape."""


def require_moveit_msgs() -> None:
    """ImportError, with what to install, where moveit_msgs is missing."""
    try:
        import moveit_msgs.msg
        import moveit_msgs.srv  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"planning_scene needs moveit_msgs: apt install ros-$ROS_DISTRO-moveit-msgs ({error})"
        ) from error


def scene_request(job: Job, prefix: str, *, max_faces: int):
    """An ApplyPlanningScene request that changes only what is in ``job``; object names begin with ``prefix``."""
    from moveit_msgs.srv import ApplyPlanningScene

    messages, colours = [], []
    for change in job.changes:
        name, want = prefix + change.name, change.wanted
        if change.operation is Operation.REMOVE:
            messages.append(removed(name, job.frame_id))
        elif change.operation is Operation.MOVE:
            messages.append(moved(name, want.frame_id, want.centre_mm))
        elif change.name == TARGETS:
            messages.append(added_targets(name, want.frame_id, job.targets))
            colours.append(colour_of(name, None))
        else:
            solid = job.solids[change.name]
            mesh = grown_mesh(solid, want.extra_mm, max_faces=max_faces)
            messages.append(added_mesh(name, want.frame_id, want.centre_mm, mesh))
            colours.append(colour_of(name, solid.structure))
    request = ApplyPlanningScene.Request()
    request.scene.is_diff = True
    request.scene.robot_state.is_diff = True
    request.scene.world.collision_objects = messages
    request.scene.object_colors = colours
    return request


def names_request():
    """A GetPlanningScene request for the names of the objects."""
    from moveit_msgs.msg import PlanningSceneComponents
    from moveit_msgs.srv import GetPlanningScene

    components = PlanningSceneComponents(components=PlanningSceneComponents.WORLD_OBJECT_NAMES)
    return GetPlanningScene.Request(components=components)


def added_mesh(name: str, frame_id: str, centre_mm: tuple[float, float, float], mesh: Mesh):
    """ADD, or replace, ``name``: the pose is at ``centre_mm``, the mesh relative to it."""
    from moveit_msgs.msg import CollisionObject

    message = _object(name, frame_id, centre_mm, CollisionObject.ADD)
    corners = mesh.vertices.astype(np.float64) - np.array(centre_mm) / MM_PER_M
    message.meshes = [
        MeshMessage(
            vertices=[Point(x=x, y=y, z=z) for x, y, z in corners.tolist()],
            triangles=[MeshTriangle(vertex_indices=face) for face in mesh.faces.astype(np.uint32)],
        )
    ]
    message.mesh_poses = [Pose()]
    return message


def added_targets(name: str, frame_id: str, targets: Targets):
    """ADD, or replace, the object whose subframes are the targets, as ``name/liver`` and the like."""
    from moveit_msgs.msg import CollisionObject

    message = _object(name, frame_id, targets.host_mm, CollisionObject.ADD)
    message.primitives = [SolidPrimitive(type=SolidPrimitive.SPHERE, dimensions=[SPECK_M])]
    message.primitive_poses = [Pose()]
    message.subframe_names = list(targets.places_mm)
    message.subframe_poses = [_pose(np.subtract(place, targets.host_mm)) for place in targets.places_mm.values()]
    return message


def moved(name: str, frame_id: str, centre_mm: tuple[float, float, float]):
    """MOVE: no geometry; MoveIt places the pose with today's TF."""
    from moveit_msgs.msg import CollisionObject

    return _object(name, frame_id, centre_mm, CollisionObject.MOVE)


def removed(name: str, frame_id: str):
    from moveit_msgs.msg import CollisionObject

    return _object(name, frame_id, (0.0, 0.0, 0.0), CollisionObject.REMOVE)


def colour_of(name: str, structure: Structure | None):
    """The structure's colour as in RViz; None: invisible."""
    from moveit_msgs.msg import ObjectColor

    if structure is None:
        return ObjectColor(id=name, color=ColorRGBA())
    red, green, blue = (channel / 255 for channel in structure.colour)
    return ObjectColor(id=name, color=ColorRGBA(r=red, g=green, b=blue, a=MARKER_ALPHA))


def _object(name: str, frame_id: str, place_mm, operation: bytes):
    from moveit_msgs.msg import CollisionObject

    message = CollisionObject(id=name, operation=operation, pose=_pose(place_mm))
    message.header.frame_id = frame_id
    return message


def _pose(place_mm) -> Pose:
    x, y, z = (float(v) / MM_PER_M for v in place_mm)
    return Pose(position=Point(x=x, y=y, z=z))
