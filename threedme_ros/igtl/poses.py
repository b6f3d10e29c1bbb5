"""TRANSFORM <-> a named pose, as PLUS and 3D Slicer name them: "ProbeToTracker" maps probe mm to tracker mm."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from threedme_ros.igtl.wire import ContentError
from threedme_ros.volume import MM_PER_M

RIGID_TOLERANCE = 1e-3
_PAIR = re.compile(r"(?P<child>.+?)To(?P<parent>[A-Z0-9].*)")
_FRAME = re.compile(r"[A-Za-z_][\w.\-/]*")


@dataclass(frozen=True)
class Pose:
    """``child`` in ``parent``: translation in m, rotation as a unit quaternion (x, y, z, w)."""

    parent: str
    child: str
    translation_m: tuple[float, float, float]
    quaternion: tuple[float, float, float, float]


def frame_names(device: str, default_parent: str) -> tuple[str, str]:
    """(parent, child) of device "<child>To<parent>"; a name without "To" is a child of ``default_parent``.

    Raises ContentError for names that TF does not take.
    """
    pair = _PAIR.fullmatch(device)
    parent, child = (pair["parent"], pair["child"]) if pair else (default_parent, device)
    if parent == child or not _FRAME.fullmatch(parent) or not _FRAME.fullmatch(child):
        raise ContentError(f"TRANSFORM {device!r}: expected a name like ProbeToTracker, of two frames that TF takes")
    return parent, child


def device_name(parent: str, child: str, default_parent: str) -> str:
    """The inverse of `frame_names`."""
    return child if parent == default_parent and not _PAIR.fullmatch(child) else f"{child}To{parent}"


def pose_from_matrix(matrix_mm: np.ndarray, parent: str, child: str) -> Pose:
    """``matrix_mm`` (4, 4). Raises ContentError unless it is finite and rigid (image calibrations hold a scale)."""
    rotation = matrix_mm[:3, :3]
    with np.errstate(over="ignore", invalid="ignore"):
        error = np.abs(rotation.T @ rotation - np.eye(3)).max()
        if not np.isfinite(matrix_mm).all() or not error < RIGID_TOLERANCE or np.linalg.det(rotation) < 0:
            raise ContentError(f"TRANSFORM {child!r} in {parent!r} is not rigid: {np.round(matrix_mm[:3], 4).tolist()}")
    translation = tuple(float(v) for v in matrix_mm[:3, 3] / MM_PER_M)
    return Pose(parent, child, translation, tuple(float(v) for v in Rotation.from_matrix(rotation).as_quat()))


def matrix_from_pose(pose: Pose) -> np.ndarray:
    """(4, 4), translation in mm. Raises ContentError for a quaternion that is no rotation."""
    numbers = np.array([*pose.translation_m, *pose.quaternion])
    norm = float(np.linalg.norm(pose.quaternion)) if np.isfinite(numbers).all() else 0.0
    if abs(norm - 1) > RIGID_TOLERANCE:
        raise ContentError(f"pose of {pose.child!r}, {numbers.tolist()}: expected finite numbers and a unit quaternion")
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat(pose.quaternion).as_matrix()
    matrix[:3, 3] = np.array(pose.translation_m) * MM_PER_M
    return matrix
