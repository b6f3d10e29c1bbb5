"""`anatomy/markers` read back: the inverse of `threedme_ros.nodes.shapes.anatomy_markers`."""

from __future__ import annotations

import numpy as np
from visualization_msgs.msg import Marker

from threedme_ros.nodes.messages import MessageError


def mesh_of_marker(marker: Marker) -> tuple[np.ndarray, np.ndarray] | None:
    """Vertices (V, 3) float64 m in the marker's frame and faces (F, 3) int64; None for a marker that is removed.

    Corners at one place become one vertex again. Raises MessageError for anything but a TRIANGLE_LIST as we publish it.
    """
    if marker.action == Marker.DELETE:
        return None
    position, turn = marker.pose.position, marker.pose.orientation
    moved = (position.x, position.y, position.z, turn.x, turn.y, turn.z) != (0.0,) * 6
    if marker.action != Marker.ADD or marker.type != Marker.TRIANGLE_LIST or moved or len(marker.points) % 3:
        raise MessageError(
            f"marker of type {marker.type}, action {marker.action}, {len(marker.points)} points"
            f"{', moved by its pose' if moved else ''}: expected a TRIANGLE_LIST in the patient frame"
        )
    corners = np.array([(p.x, p.y, p.z) for p in marker.points], np.float64).reshape(-1, 3)
    rows = np.ascontiguousarray(corners).view("V24").ravel()  # whole rows compared as bytes: unique without a 2-D sort
    _, first, index = np.unique(rows, return_index=True, return_inverse=True)
    return corners[first], index.reshape(-1, 3)
