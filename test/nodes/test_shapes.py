import numpy as np
import pytest

pytest.importorskip("rclpy")
from builtin_interfaces.msg import Time
from sensor_msgs.msg import PointField
from std_msgs.msg import Header
from visualization_msgs.msg import Marker

from threedme_ros.geometry.surface import Mesh, PointCloud
from threedme_ros.nodes.shapes import (
    anatomy_cloud,
    anatomy_markers,
    obstacle_cloud,
    read_anatomy_cloud,
    read_obstacle_cloud,
)

HEADER = Header(stamp=Time(sec=3), frame_id="ct")
CLOUD = PointCloud(
    np.array([[0.1, -0.2, 0.3], [1, 2, 3]], np.float32), np.array([4, 10], np.uint8), np.array([255, 7], np.uint8)
)
TETRAHEDRON = Mesh(
    np.array([[0, 0, 0], [0.1, 0, 0], [0, 0.1, 0], [0, 0, 0.1]], np.float32),
    np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], np.int32),
)


def test_cloud_bytes_are_what_rviz_and_pcl_expect(anatomy):
    message = anatomy_cloud(CLOUD, anatomy, HEADER)
    assert (message.header, message.height, message.width) == (HEADER, 1, 2)
    assert [(f.name, f.offset, f.datatype, f.count) for f in message.fields] == [
        ("x", 0, PointField.FLOAT32, 1),
        ("y", 4, PointField.FLOAT32, 1),
        ("z", 8, PointField.FLOAT32, 1),
        ("rgb", 12, PointField.FLOAT32, 1),
        ("label", 16, PointField.UINT8, 1),
        ("confidence", 17, PointField.UINT8, 1),
    ]
    assert (message.point_step, message.row_step, message.is_bigendian, message.is_dense) == (20, 40, False, True)
    first = bytes(message.data[:20])
    np.testing.assert_array_equal(np.frombuffer(first[:12], "<f4"), CLOUD.points[0])
    blue, green, red = first[12:15]  # little endian 0x00RRGGBB
    assert (red, green, blue) == anatomy["liver"].colour
    assert first[15:18] == bytes([0, 4, 255])


def test_clouds_read_back(anatomy):
    back = read_anatomy_cloud(anatomy_cloud(CLOUD, anatomy, HEADER))
    for name in ("points", "labels", "confidence"):
        np.testing.assert_array_equal(getattr(back, name), getattr(CLOUD, name))
    np.testing.assert_array_equal(read_obstacle_cloud(obstacle_cloud(CLOUD.points, HEADER)), CLOUD.points)


def test_empty_cloud_is_a_cloud(anatomy):
    nothing = PointCloud(np.zeros((0, 3), np.float32), np.zeros(0, np.uint8), np.zeros(0, np.uint8))
    assert anatomy_cloud(nothing, anatomy, HEADER).width == 0
    assert obstacle_cloud(nothing.points, HEADER).width == 0


def test_markers_add_what_is_there_and_delete_what_is_not(anatomy):
    markers = {m.ns: m for m in anatomy_markers({"liver": TETRAHEDRON}, anatomy, HEADER).markers}
    assert list(markers) == [s.name for s in anatomy]
    assert {name for name, m in markers.items() if m.action == Marker.ADD} == {"liver"}
    assert {m.action for name, m in markers.items() if name != "liver"} == {Marker.DELETE}
    liver = markers["liver"]
    assert (liver.id, liver.type, liver.header) == (anatomy["liver"].id, Marker.TRIANGLE_LIST, HEADER)
    assert (liver.scale.x, liver.scale.y, liver.scale.z, liver.pose.orientation.w) == (1, 1, 1, 1)
    np.testing.assert_allclose(
        [(p.x, p.y, p.z) for p in liver.points], TETRAHEDRON.vertices[TETRAHEDRON.faces.ravel()], rtol=1e-6
    )
    np.testing.assert_allclose(
        np.array([liver.color.r, liver.color.g, liver.color.b]) * 255, anatomy["liver"].colour, atol=1e-3
    )
    assert 0 < liver.color.a <= 1
