import numpy as np
import pytest

pytest.importorskip("rclpy")
from std_msgs.msg import Header

from threedme_ros.geometry.surface import Mesh
from threedme_ros.nodes.marker_mesh import mesh_of_marker
from threedme_ros.nodes.messages import MessageError
from threedme_ros.nodes.shapes import anatomy_markers


def test_a_published_mesh_comes_back_with_its_corners_shared(anatomy):
    vertices = np.array([[0, 0, 0], [0.1, 0, 0], [0, 0.1, 0], [0, 0, 0.1]], np.float32)
    faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], np.int32)
    markers = anatomy_markers({"liver": Mesh(vertices, faces)}, anatomy, Header(frame_id="patient")).markers
    meshes = {marker.ns: mesh_of_marker(marker) for marker in markers}
    found, cells = meshes.pop("liver")
    assert found.shape == (4, 3) and set(meshes.values()) == {None}
    np.testing.assert_array_equal(found[cells], vertices[faces])


def test_markers_that_are_no_mesh_of_ours_are_refused(anatomy):
    mesh = Mesh(np.eye(3, dtype=np.float32), np.array([[0, 1, 2]], np.int32))
    marker = next(m for m in anatomy_markers({"liver": mesh}, anatomy, Header()).markers if m.ns == "liver")
    marker.pose.position.x = 0.5
    with pytest.raises(MessageError, match="moved by its pose"):
        mesh_of_marker(marker)
    marker.pose.position.x, marker.type = 0.0, marker.SPHERE
    with pytest.raises(MessageError, match="expected a TRIANGLE_LIST"):
        mesh_of_marker(marker)
