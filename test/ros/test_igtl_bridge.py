"""The bridge as a process: pyigtl on its sockets, DDS on its topics, in both roles."""

import re
import signal
import socket
import struct
import time

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TransformStamped
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from threedme_ros.geometry.surface import surface_meshes
from threedme_ros.nodes.messages import volume_from_message, volume_message
from threedme_ros.nodes.qos import RESULTS, VOLUMES
from threedme_ros.nodes.shapes import anatomy_markers
from threedme_ros.phantom import phantom
from threedme_ros.volume import LPS_FROM_RAS

pyigtl = pytest.importorskip("pyigtl", reason="pyigtl is not installed: pip install 'threedme_ros[igtl]'")
STAMP_S = 1_700_000_000.25
SHAPE, SPACING_MM = (48, 40, 32), (8.0, 7.0, 12.0)


@pytest.fixture(scope="module")
def bridge(domain):
    """A bridge in the server role; ``port`` is where it listens."""
    process = domain.start("igtl_bridge", port=0, stall_timeout_s=0.5, max_message_mb=100, frame_id="ct")
    output = process.wait_for("listening on 127.0.0.1:")
    process.port = int(re.search(r"listening on 127\.0\.0\.1:(\d+)", output)[1])
    return process


@pytest.fixture
def peer(bridge):
    client = pyigtl.OpenIGTLinkClient("127.0.0.1", bridge.port)
    yield client
    client.stop()


def lps_image(volume, stamp_s=STAMP_S, device="ct"):
    """``volume`` as a scanner would send it: axes and world in LPS."""
    lps = volume.reoriented("LPS")[0]
    return pyigtl.ImageMessage(lps.voxels.T, LPS_FROM_RAS @ lps.affine, "lps", stamp_s, device)


def assert_is_phantom(message, frame_id):
    image, labels = phantom(SHAPE, SPACING_MM)
    assert message.header.frame_id == frame_id and message.header.stamp == Time(sec=1_700_000_000, nanosec=250_000_000)
    volume = volume_from_message(message).reoriented("RAS")[0]
    np.testing.assert_array_equal(volume.voxels, image.voxels)
    np.testing.assert_allclose(volume.affine, image.affine, atol=1e-3)
    liver = np.argwhere(labels.voxels == 4).mean(axis=0)
    assert volume.grid.to_mm(liver[None])[0, 0] > 40  # the patient's right


def test_image_in_as_server_lands_the_right_way_round(domain, bridge, peer):
    received = domain.collect(CompressedImage, "volume", VOLUMES)
    domain.spin_until(lambda: domain.node.count_publishers("volume"), what="no publisher of volume")
    time.sleep(0.2)  # let the match reach the other side, too
    peer.send_message(lps_image(phantom(SHAPE, SPACING_MM)[0]), wait=True)
    domain.spin_until(lambda: received, what="no volume")
    assert_is_phantom(received[0], "ct")


def test_image_in_as_client_and_again_after_the_server_was_away(domain):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    received = domain.collect(CompressedImage, "plus/volume", VOLUMES)
    process = domain.start("igtl_bridge", "-r", "__ns:=/plus", role="client", port=port, frame_id="patient")
    process.wait_for("no connection, again in")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    server = pyigtl.OpenIGTLinkServer(port=port, local_server=True)
    for number, handler in handlers.items():  # it takes over the whole process's
        signal.signal(number, handler)
    process.wait_for(f"connected to 127.0.0.1:{port}")
    domain.spin_until(lambda: domain.node.count_publishers("plus/volume"), what="no publisher")
    time.sleep(0.2)
    server.send_message(lps_image(phantom(SHAPE, SPACING_MM)[0]), wait=True)
    domain.spin_until(lambda: received, what="no volume")
    assert_is_phantom(received[0], "patient")
    assert process.interrupt() == 0
    server.stop()


def test_labels_and_surfaces_reach_a_peer_that_comes_late(domain, bridge, anatomy):
    labels = phantom(SHAPE, SPACING_MM)[1]
    header = Header(stamp=Time(sec=1_700_000_000, nanosec=250_000_000), frame_id="ct")
    meshes = surface_meshes(labels, anatomy)
    domain.node.create_publisher(CompressedImage, "labels", RESULTS).publish(volume_message(labels, header.stamp))
    markers = domain.node.create_publisher(MarkerArray, "anatomy/markers", RESULTS)
    markers.publish(anatomy_markers(meshes, anatomy, header))
    domain.spin_until(lambda: counts(domain)["surfaces_out"] >= len(meshes), what="surfaces did not go out")
    domain.spin_until(lambda: counts(domain)["labels_out"] >= 1, what="labels did not go out")
    late = pyigtl.OpenIGTLinkClient("127.0.0.1", bridge.port)
    image = late.wait_for_message("labels", 10)
    late.stop()
    np.testing.assert_array_equal(image.image.T, labels.voxels)
    np.testing.assert_allclose(image.ijk_to_world_matrix, labels.affine, atol=1e-3)
    assert (image.world_coordinate_system, image.timestamp) == ("ras", STAMP_S)
    surfaces = kept_surfaces(bridge.port, len(meshes))
    assert set(surfaces) == set(meshes)
    for name, mesh in meshes.items():
        vertices, faces = surfaces[name]
        assert len(faces) == len(mesh.faces)
        np.testing.assert_allclose(vertices[faces], mesh.vertices[mesh.faces] * 1000, atol=1e-3)
    assert surfaces["liver"][0][:, 0].mean() > 40 > -40 > surfaces["spleen"][0][:, 0].mean()
    markers.publish(anatomy_markers({n: m for n, m in meshes.items() if n != "spleen"}, anatomy, header))
    domain.spin_until(lambda: len(kept_surfaces(bridge.port, len(meshes))["spleen"][1]) == 0, what="spleen stays")


def test_transforms_pass_both_ways(domain, bridge, peer):
    received = domain.collect(TransformStamped, "igtl/transform_in", 10)
    publisher = domain.node.create_publisher(TransformStamped, "igtl/transform_out", 10)
    domain.spin_until(lambda: publisher.get_subscription_count(), what="nobody takes transform_out")
    domain.spin_until(lambda: domain.node.count_publishers("igtl/transform_in"), what="no publisher")
    time.sleep(0.2)
    quarter = np.array([[0, -1, 0, 10], [1, 0, 0, 20], [0, 0, 1, 30], [0, 0, 0, 1.0]])
    peer.send_message(pyigtl.TransformMessage(quarter, STAMP_S, "ProbeToTracker"), wait=True)
    domain.spin_until(lambda: received, what="no transform")
    message = received[0]
    assert (message.header.frame_id, message.child_frame_id) == ("Tracker", "Probe")
    assert message.header.stamp == Time(sec=1_700_000_000, nanosec=250_000_000)
    shift, turn = message.transform.translation, message.transform.rotation
    np.testing.assert_allclose((shift.x, shift.y, shift.z), (0.01, 0.02, 0.03), atol=1e-9)
    np.testing.assert_allclose((turn.x, turn.y, turn.z, turn.w), (0, 0, np.sqrt(0.5), np.sqrt(0.5)), atol=1e-7)
    publisher.publish(message)
    np.testing.assert_allclose(peer.wait_for_message("ProbeToTracker", 5).matrix, quarter, atol=1e-5)


def test_bad_messages_are_refused_with_a_reason_and_the_bridge_lives_on(domain, bridge, peer):
    received = domain.collect(CompressedImage, "volume", VOLUMES)
    small = phantom((4, 4, 4))[0]
    for message in (
        lps_image(small, stamp_s=0.0, device="unstamped"),
        pyigtl.ImageMessage(np.zeros((1, 40, 50), np.uint8), np.eye(4), "lps", STAMP_S, "slice"),
        pyigtl.TransformMessage(np.diag([2.0, 2, 2, 1]), STAMP_S, "ImageToProbe"),
        pyigtl.StringMessage("hello", STAMP_S, "text"),
    ):
        peer.send_message(message, wait=True)
    with socket.create_connection(("127.0.0.1", bridge.port), 5) as bad:
        packed = lps_image(small).pack()
        bad.sendall(packed[:42] + struct.pack(">Q", 2**31) + packed[50:58])
        bridge.wait_for("header claims 2147483648 bytes: the limit is 100000000")
    with socket.create_connection(("127.0.0.1", bridge.port), 5) as half:
        half.sendall(packed[:100])
        bridge.wait_for("half a message: 42 of ")
    domain.spin_until(lambda: counts(domain)["refused"] >= 3 and counts(domain)["ignored_in"] >= 1, what="not counted")
    assert not received
    assert "'unstamped' refused: time stamp 0.000000000" in bridge.output()
    peer.send_message(lps_image(phantom(SHAPE, SPACING_MM)[0]), wait=True)
    domain.spin_until(lambda: received, what="no volume after the bad ones")
    assert_is_phantom(received[0], "ct")
    assert bridge.interrupt() == 0
    assert "Traceback" not in bridge.output()


def test_it_tells_how_it_is_in_simulated_time_without_a_clock(domain):
    spoken = domain.collect(DiagnosticArray, "/diagnostics", 10)
    process = domain.start("igtl_bridge", "-r", "__ns:=/simulated", use_sim_time=True, port=0)
    ours = lambda: [m for m in spoken if m.status[0].name == "/simulated/igtl_bridge"]  # noqa: E731
    domain.spin_until(lambda: len(ours()) >= 2, 60.0, "no diagnostics")
    assert process.interrupt() == 0


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"role": "peer"}, "error: role 'peer': expected one of"),
        ({"host": "192.0.2.1"}, "cannot listen there"),
        ({"host": "robot..local"}, "error: host 'robot..local', port 0: cannot listen there"),
        ({"host": "robot..local", "role": "client"}, "error: host 'robot..local': no machine has such a name"),
        ({"frame_id": "''"}, "frame_id ''"),
        ({"port": 70000}, "port"),
    ],
)
def test_unusable_parameters_end_it_with_one_line(domain, parameters, reason):
    process = domain.start("igtl_bridge", "-r", "__ns:=/wrong", **{"port": 0, **parameters})
    assert process.wait() == 1
    assert reason in process.output() and "Traceback" not in process.output()


def counts(domain) -> dict[str, int]:
    """The bridge's own counters, as it last published them."""
    if not hasattr(domain, "igtl_diagnostics"):
        domain.igtl_diagnostics = domain.collect(DiagnosticArray, "/diagnostics", 10)
    ours = [m.status[0] for m in domain.igtl_diagnostics if m.status[0].name == "/igtl_bridge"]
    values = {pair.key: pair.value for pair in ours[-1].values} if ours else {}
    return {key: int(values.get(key, 0)) for key in ("surfaces_out", "labels_out", "refused", "ignored_in")}


def kept_surfaces(port: int, count: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What a newcomer gets: device -> vertices (V, 3) mm, faces (F, 3); by hand, pyigtl cannot read POLYDATA."""
    surfaces = {}
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        stream = sock.makefile("rb")
        while len(surfaces) < count:
            _, kind, device, _, _, size, _ = struct.unpack(">H12s20sIIQQ", stream.read(58))
            body = stream.read(size)
            if kind.rstrip(b"\0") != b"POLYDATA":
                continue
            points, cells = struct.unpack(">10I", body[:40])[0], struct.unpack(">10I", body[:40])[5]
            vertices = np.frombuffer(body, ">f4", points * 3, 40).reshape(-1, 3)
            faces = np.frombuffer(body, ">u4", cells * 4, 40 + points * 12).reshape(-1, 4)[:, 1:]
            surfaces[device.rstrip(b"\0").decode()] = (vertices, faces)
    return surfaces
