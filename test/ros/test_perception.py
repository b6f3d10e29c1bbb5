"""One running node: results on the input's grid, services, parameters, QoS."""

import json

import numpy as np
import pytest

pytest.importorskip("rclpy")
from diagnostic_msgs.msg import DiagnosticStatus
from perceiving import TYPES, Perceiving, next_stamp, points_of, xyz
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, PointCloud2
from std_srvs.srv import SetBool, Trigger
from visualization_msgs.msg import Marker

from threedme_ros.anatomy import Anatomy
from threedme_ros.nodes.messages import volume_from_message, volume_message
from threedme_ros.nodes.qos import RESULTS
from threedme_ros.phantom import phantom
from threedme_ros.share import share_path
from threedme_ros.volume import Volume

ANATOMY = Anatomy.from_yaml(share_path("config/anatomy.yaml"))


@pytest.fixture(scope="module")
def image() -> Volume:
    """An oblique phantom in a frame of its own."""
    image = phantom((40, 32, 44), (9.0, 8.0, 9.5))[0]
    tilt = np.eye(4)
    tilt[:2, :2] = [[np.cos(0.1), -np.sin(0.1)], [np.sin(0.1), np.cos(0.1)]]
    tilt[:3, 3] = (11.5, -7.25, 300.0)
    return Volume(image.voxels, (tilt @ image.affine).astype(np.float32), "theatre/patient")


@pytest.fixture(scope="module")
def node(domain, random_checkpoint) -> Perceiving:
    process = domain.start(
        "perception", "-r", "__ns:=/theatre", checkpoint=random_checkpoint, engine="torch", threads=1, max_faces=400
    )
    node = Perceiving(domain, process, "/theatre/perception")
    node.wait_for_subscription()
    return node


@pytest.mark.parametrize(
    ("codes", "format"),
    [("RAS", "nifti"), ("LPS", "nifti"), ("SAR", "nifti; gzip"), ("PIL", "nrrd"), ("LPS", "nrrd")],
)
def test_labels_lie_on_exactly_the_input_grid(node, image, codes, format):
    volume = image.reoriented(codes)[0]
    stamp = node.segment(volume, format)
    sent = volume_from_message(volume_message(volume, stamp, format))
    for topic in ("labels", "confidence"):
        message = node.last(topic)
        assert (message.header.stamp, message.header.frame_id) == (stamp, "theatre/patient")
        result = volume_from_message(message)
        assert (result.shape, result.voxels.dtype) == (volume.shape, np.uint8)
        np.testing.assert_array_equal(result.affine, sent.affine)
    assert set(np.unique(volume_from_message(node.last("labels")).voxels)) <= {0, *(s.id for s in ANATOMY)}


def test_the_same_anatomy_whatever_the_storage_order(node, image):
    node.segment(image)
    expected = volume_from_message(node.last("labels")).voxels
    centroid = xyz(points_of(node.last("anatomy/points"))).mean(0)
    for codes, format in (("LPS", "nifti"), ("ASR", "nrrd")):
        turned, step = image.reoriented(codes)
        node.segment(turned, format)
        np.testing.assert_array_equal(step.invert(volume_from_message(node.last("labels")).voxels), expected)
        np.testing.assert_allclose(xyz(points_of(node.last("anatomy/points"))).mean(0), centroid, atol=2e-3)


def test_cloud_and_markers_are_the_labels_in_metres(node, image):
    stamp = node.segment(image)
    labels = volume_from_message(node.last("labels"))
    cloud = node.last("anatomy/points")
    points = points_of(cloud)
    assert [f.name for f in cloud.fields] == ["x", "y", "z", "rgb", "label", "confidence"]
    assert (cloud.header.stamp, cloud.header.frame_id, cloud.is_bigendian) == (stamp, "theatre/patient", False)
    assert (cloud.height, cloud.width) == (1, len(points))
    voxel_m = max(labels.spacing_mm) / 1000
    present = [s for s in ANATOMY if (labels.voxels == s.id).any()]
    assert present
    for structure in present:
        voxels_m = labels.grid.to_mm(np.argwhere(labels.voxels == structure.id)) / 1000
        its = points[points["label"] == structure.id]
        assert (xyz(its) > voxels_m.min(0) - voxel_m).all() and (xyz(its) < voxels_m.max(0) + voxel_m).all()
        red, green, blue = structure.colour
        assert (its["rgb"].view(np.uint32) == (red << 16 | green << 8 | blue)).all()
    markers = {m.ns: m for m in node.last("anatomy/markers").markers}
    assert {name: m.id for name, m in markers.items()} == {s.name: s.id for s in ANATOMY}
    assert any(m.action == Marker.ADD for m in markers.values())
    for name, marker in markers.items():
        assert (marker.header.stamp, marker.header.frame_id) == (stamp, "theatre/patient")
        if marker.action == Marker.ADD:
            assert marker.type == Marker.TRIANGLE_LIST and len(marker.points) % 3 == 0
            assert len(marker.points) <= 3 * 400
            vertices = np.array([(p.x, p.y, p.z) for p in marker.points])
            voxels_m = labels.grid.to_mm(np.argwhere(labels.voxels == ANATOMY[name].id)) / 1000
            assert (vertices > voxels_m.min(0) - voxel_m).all() and (vertices < voxels_m.max(0) + voxel_m).all()


def test_overlay_and_label_info(node, image):
    stamp = node.segment(image)
    overlay = node.last("overlay")
    assert (overlay.header.stamp, overlay.encoding, overlay.step) == (stamp, "rgb8", 3 * overlay.width)
    assert len(overlay.data) == overlay.step * overlay.height
    assert len(set(bytes(overlay.data))) > 20
    info = json.loads(node.last("label_info").data)
    assert [s["name"] for s in info["structures"]] == [s.name for s in ANATOMY]
    assert info["checkpoint"] == node.diagnostics["checkpoint"]
    assert info["notice"] == "for demonstration only, not for clinical use"


def test_diagnostics_tell_what_runs_and_how_fast(node, image):
    node.segment(image)
    node.segment(image)
    values = node.diagnostics
    assert (values["state"], values["engine"], values["precision"], values["device"]) == (
        "active",
        "torch",
        "fp32",
        "cpu",
    )
    assert len(values["checkpoint"]) == 16
    assert float(values["age_of_last_result_s"]) < 60
    assert float(values["stamp_to_publish_p50_ms"]) <= float(values["stamp_to_publish_p95_ms"])
    outcomes = ("segmented", "refused", "failed", "replaced", "ignored")
    assert node.count("seen") == sum(node.count(what) for what in outcomes)


def test_types_and_qos_of_every_topic(node, domain):
    for topic, kind in TYPES.items():
        (publisher,) = domain.node.get_publishers_info_by_topic(f"/theatre/{topic}")
        assert publisher.topic_type == "/".join([kind.__module__.split(".")[0], "msg", kind.__name__])
        qos = publisher.qos_profile
        assert (qos.reliability, qos.durability) == (ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL)
    (subscriber,) = domain.node.get_subscriptions_info_by_topic("/theatre/volume")
    qos = subscriber.qos_profile
    assert (qos.reliability, qos.durability) == (ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE)
    assert subscriber.topic_type == "sensor_msgs/msg/CompressedImage"


def test_late_subscriber_gets_the_last_anatomy(node, domain, image):
    stamp = node.segment(image)
    late = domain.collect(CompressedImage, "/theatre/labels", RESULTS)
    domain.spin_until(lambda: late, what="nothing latched")
    assert late[0].header.stamp == stamp


def test_obstacles_come_again_for_best_effort_subscribers(node, domain, image):
    node.segment(image)
    octomap = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
    clouds = domain.collect(PointCloud2, "/theatre/anatomy/obstacles", octomap)
    domain.spin_until(lambda: len(clouds) >= 2, what="obstacles are not repeated")
    assert clouds[-1] == node.last("anatomy/obstacles")


def test_volume_publisher_with_another_qos_is_named_in_the_log(node, domain):
    best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    publisher = domain.node.create_publisher(CompressedImage, "/theatre/volume", best_effort)
    domain.spin_until(lambda: "incompatible RELIABILITY" in node.process.output(), what="mismatch is silent")
    line = next(line for line in node.process.output().splitlines() if "incompatible RELIABILITY" in line)
    assert "this node requests RELIABLE, VOLATILE" in line
    domain.node.destroy_publisher(publisher)


def test_segment_service_repeats_the_latest_volume(node, domain, image):
    stamp = node.segment(image)
    before, segmented = len(node.received["labels"]), node.count("segmented")
    assert domain.call(Trigger, "/theatre/perception/segment").success
    domain.spin_until(lambda: len(node.received["labels"]) > before and node.count("segmented") > segmented)
    assert node.last("labels").header.stamp == stamp


def test_disabled_node_counts_and_drops(node, domain, image):
    assert domain.call(SetBool, "/theatre/perception/set_enabled", SetBool.Request(data=False)).success
    ignored, labels = node.count("ignored"), len(node.received["labels"])
    node.send(volume_message(image, next_stamp()))
    domain.spin_until(lambda: node.count("ignored") == ignored + 1)
    assert len(node.received["labels"]) == labels
    assert domain.call(SetBool, "/theatre/perception/set_enabled", SetBool.Request(data=True)).success
    node.segment(image)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("min_confidence", 1.5, "min_confidence"),
        ("min_confidence", "high", "Wrong parameter type"),
        ("engine", "onnxruntime", "read-only"),
        ("max_voxels", 10, "read-only"),
        ("margin_mm.aorta", 500.0, "margin_mm.aorta"),
        ("margin_mm.aorta", float("nan"), "margin_mm.aorta"),
    ],
)
def test_unusable_parameter_is_refused_with_the_reason(node, domain, name, value, reason):
    result = domain.set_parameter("/theatre/perception", name, value)
    assert not result.successful
    assert reason in result.reason


def test_margin_and_threshold_act_on_the_last_anatomy_at_once(node, domain, image):
    stamp = node.segment(image)
    points, obstacles = node.last("anatomy/points"), node.last("anatomy/obstacles")
    no_go = next(s for s in ANATOMY if s.role == "no-go" and (points_of(points)["label"] == s.id).any())
    assert domain.set_parameter("/theatre/perception", f"margin_mm.{no_go.name}", 40.0).successful
    domain.spin_until(lambda: node.last("anatomy/obstacles").data != obstacles.data, what="margin has no effect")
    assert json.loads(node.last("label_info").data)["structures"][no_go.id - 1]["margin_mm"] == 40.0
    assert domain.set_parameter("/theatre/perception", "min_confidence", 1.0).successful
    domain.spin_until(lambda: node.last("anatomy/points").width < points.width, what="threshold has no effect")
    assert node.last("anatomy/points").header.stamp == node.last("anatomy/obstacles").header.stamp == stamp
    assert domain.set_parameter("/theatre/perception", "min_confidence", 0.0).successful
    assert domain.set_parameter("/theatre/perception", f"margin_mm.{no_go.name}", no_go.margin_mm).successful


def test_no_volume_was_refused_and_ctrl_c_is_a_clean_end(node):
    assert node.diagnostics["level"] == DiagnosticStatus.OK
    assert (node.count("refused"), node.count("failed")) == (0, 0)
    assert node.process.interrupt() == 0
    assert "Traceback" not in node.process.output()
