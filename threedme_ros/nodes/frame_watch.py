"""Where the patient frame is for the planner, by TF."""

from __future__ import annotations

import numpy as np
from rclpy.time import Time
from scipy.spatial.transform import Rotation

from threedme_ros.nodes.parameters import ParameterError


class FrameWatch:
    """Listens to TF on the node's own executor."""

    def __init__(self, node, planning_frame: str) -> None:
        try:
            import tf2_ros
        except ImportError as error:
            raise ParameterError(
                f"planning_frame {planning_frame!r}: needs tf2_ros: apt install ros-$ROS_DISTRO-tf2-ros-py "
                f"(or leave it empty and call ~/registration_changed)"
            ) from error
        self._planning_frame = planning_frame
        self._buffer = tf2_ros.Buffer()
        self._listener = tf2_ros.TransformListener(self._buffer, node)
        self._errors = tf2_ros.TransformException

    def transform(self, frame_id: str, into: str | None = None) -> np.ndarray | None:
        """The newest (4, 4), m, from ``frame_id`` to ``into`` (the planning frame); None where TF does not know it."""
        try:
            found = self._buffer.lookup_transform(into or self._planning_frame, frame_id, Time()).transform
        except self._errors:
            return None
        matrix = np.eye(4)
        turn, shift = found.rotation, found.translation
        matrix[:3, :3] = Rotation.from_quat([turn.x, turn.y, turn.z, turn.w]).as_matrix()
        matrix[:3, 3] = [shift.x, shift.y, shift.z]
        return matrix
