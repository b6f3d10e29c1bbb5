"""Meshes and clouds -> visualization_msgs and sensor_msgs, in metres, in the frame and at the stamp of the volume."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from geometry_msgs.msg import Point, Vector3
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from threedme_ros.anatomy import Anatomy, Structure
from threedme_ros.geometry.surface import Mesh, PointCloud
from threedme_ros.nodes.messages import byte_array

ANATOMY_POINT = np.dtype(
    {
        "names": ["x", "y", "z", "rgb", "label", "confidence"],
        "formats": ["<f4", "<f4", "<f4", "<u4", "u1", "u1"],
        "offsets": [0, 4, 8, 12, 16, 17],
        "itemsize": 20,
    }
)
"""A point of `anatomy/points`. ``rgb``: 0x00RRGGBB, announced as the FLOAT32 of those bits, as RViz and PCL read it."""

OBSTACLE_POINT = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4")])

MARKER_ALPHA = 0.6

_DATATYPES = {"f4": PointField.FLOAT32, "u4": PointField.FLOAT32, "u1": PointField.UINT8}


def anatomy_cloud(cloud: PointCloud, anatomy: Anatomy, header: Header) -> PointCloud2:
    """Boundary points (N, 3) m with their colour, label and confidence 0..255."""
    points = np.zeros(len(cloud.points), ANATOMY_POINT)
    points["x"], points["y"], points["z"] = cloud.points.T
    packed = anatomy.colour_map().astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    points["rgb"] = packed[cloud.labels]
    points["label"] = cloud.labels
    points["confidence"] = cloud.confidence
    return _cloud_message(points, header)


def obstacle_cloud(points_m: np.ndarray, header: Header) -> PointCloud2:
    """Points (N, 3) m on the grown no-go anatomy: x, y, z only, for MoveIt's octomap."""
    points = np.ascontiguousarray(points_m, "<f4").reshape(-1, 3).view(OBSTACLE_POINT).reshape(-1)
    return _cloud_message(points, header)


def read_anatomy_cloud(message: PointCloud2) -> PointCloud:
    """The inverse of `anatomy_cloud`, colours aside."""
    points = np.frombuffer(message.data, ANATOMY_POINT)
    return PointCloud(_xyz(points), points["label"].copy(), points["confidence"].copy())


def read_obstacle_cloud(message: PointCloud2) -> np.ndarray:
    """The inverse of `obstacle_cloud`: (N, 3) float32 m."""
    return _xyz(np.frombuffer(message.data, OBSTACLE_POINT))


def _xyz(points: np.ndarray) -> np.ndarray:
    return np.stack([points["x"], points["y"], points["z"]], -1)


def _cloud_message(points: np.ndarray, header: Header) -> PointCloud2:
    """points: a structured array (N,), one unordered row of the cloud."""
    fields = [
        PointField(name=name, offset=offset, datatype=_DATATYPES[kind.str[1:]], count=1)
        for name, (kind, offset) in points.dtype.fields.items()
    ]
    step = points.dtype.itemsize
    message = PointCloud2(
        header=header, height=1, width=len(points), fields=fields, point_step=step, row_step=step * len(points)
    )
    message.is_bigendian = False
    message.is_dense = True
    message.data = byte_array(points.tobytes())
    return message


def anatomy_markers(meshes: Mapping[str, Mesh], anatomy: Anatomy, header: Header) -> MarkerArray:
    """One TRIANGLE_LIST a structure, namespace its name and id its label; DELETE for a structure not in ``meshes``.

    Every array speaks about every structure, so a viewer that joins late or misses one ends up with the same scene.
    """
    with _no_collection():
        return MarkerArray(markers=[_marker(s, meshes.get(s.name), header) for s in anatomy])


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without the cyclic garbage collector: 40,000 new Points start it over and over, 30 ms become 90."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _marker(structure: Structure, mesh: Mesh | None, header: Header) -> Marker:
    marker = Marker(header=header, ns=structure.name, id=structure.id, type=Marker.TRIANGLE_LIST)
    if mesh is None or not len(mesh.faces):
        marker.action = Marker.DELETE
        return marker
    marker.action = Marker.ADD
    marker.pose.orientation.w = 1.0
    marker.scale = Vector3(x=1.0, y=1.0, z=1.0)
    red, green, blue = (channel / 255 for channel in structure.colour)
    marker.color = ColorRGBA(r=red, g=green, b=blue, a=MARKER_ALPHA)
    # one Point object a vertex, shared by its faces: 40 ms instead of 280 for 15 meshes of 5,000 faces
    vertices = [Point(x=x, y=y, z=z) for x, y, z in mesh.vertices.tolist()]
    marker.points = list(map(vertices.__getitem__, mesh.faces.ravel().tolist()))
    return marker
