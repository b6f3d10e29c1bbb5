import numpy as np
import pytest

from threedme_ros.igtl.poses import Pose, device_name, frame_names, matrix_from_pose, pose_from_matrix
from threedme_ros.igtl.wire import ContentError

QUARTER_ABOUT_Z = np.array([[0, -1, 0, 10], [1, 0, 0, 20], [0, 0, 1, 30], [0, 0, 0, 1.0]])


@pytest.mark.parametrize(
    ("device", "parent", "child"),
    [
        ("ProbeToTracker", "Tracker", "Probe"),
        ("StylusTipToReference", "Reference", "StylusTip"),
        ("Tool", "patient", "Tool"),
        ("Tomograph", "patient", "Tomograph"),
    ],
)
def test_plus_names_give_frames_and_back(device, parent, child):
    assert frame_names(device, "patient") == (parent, child)
    assert device_name(parent, child, "patient") == device


@pytest.mark.parametrize("device", ["", "a b", "/probe", "ProbeToProbe", "patient", "Größe!"])
def test_names_that_tf_does_not_take_are_refused(device):
    with pytest.raises(ContentError, match="expected a name like ProbeToTracker"):
        frame_names(device, "patient")


def test_quarter_turn_and_millimetres():
    pose = pose_from_matrix(QUARTER_ABOUT_Z, "Tracker", "Probe")
    np.testing.assert_allclose(pose.translation_m, (0.01, 0.02, 0.03))
    np.testing.assert_allclose(pose.quaternion, (0, 0, np.sqrt(0.5), np.sqrt(0.5)))
    np.testing.assert_allclose(matrix_from_pose(pose), QUARTER_ABOUT_Z, atol=1e-12)


@pytest.mark.parametrize(
    "linear", [np.diag([2.0, 2, 2]), np.diag([-1.0, 1, 1]), np.full((3, 3), np.nan), np.full((3, 3), 1e200)]
)
def test_scales_mirrors_and_nonsense_are_no_pose(linear):
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    with pytest.raises(ContentError, match="is not rigid"):
        pose_from_matrix(matrix, "Tracker", "Probe")


@pytest.mark.parametrize("quaternion", [(0, 0, 0, 0), (0, 0, 0, 2), (np.nan, 0, 0, 1)])
def test_quaternions_that_are_no_rotation_are_refused(quaternion):
    with pytest.raises(ContentError, match="unit quaternion"):
        matrix_from_pose(Pose("patient", "tool", (0.0, 0.0, 0.0), quaternion))
