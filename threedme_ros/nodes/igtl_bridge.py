"""The OpenIGTLink bridge: 3D Slicer, PLUS and their like on one side, the perception node's topics on the other.

| topic | type | QoS (reliability, durability, depth) | |
|---|---|---|---|
| `volume` | CompressedImage | reliable, volatile, 1 | published: IMAGE that came in |
| `igtl/transform_in` | TransformStamped | reliable, volatile, 10 | published: TRANSFORM that came in [m] |
| `/tf` | TFMessage | reliable, volatile, 100 | the same, only with `publish_tf` (needs tf2_msgs) |
| `labels` | CompressedImage | reliable, transient local, 1 | subscribed: goes out as IMAGE "labels" |
| `anatomy/markers` | MarkerArray | reliable, transient local, 1 | subscribed: one POLYDATA a structure goes out [mm] |
| `igtl/transform_out` | TransformStamped | reliable, volatile, 10 | subscribed: goes out as TRANSFORM [mm] |
| `/diagnostics` | DiagnosticArray | reliable, volatile, 10 | 1 Hz |

Labels and surfaces are kept for peers that connect later; transforms are not, they age. Parameters:
`IgtlBridgeParameters`. How to connect Slicer and PLUS: docs/openigtlink.md.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Quaternion, TransformStamped, Vector3
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage
from visualization_msgs.msg import MarkerArray

from threedme_ros.igtl import content, poses
from threedme_ros.igtl.link import DEFAULT_PORT, MAX_KEYS, Client, Links, LinkSettings, Server
from threedme_ros.igtl.wire import ContentError, Frame, Limits, require_pyigtl
from threedme_ros.nodes.diagnostics import diagnostics_message
from threedme_ros.nodes.entry import run_node
from threedme_ros.nodes.event_log import EventLog
from threedme_ros.nodes.marker_mesh import mesh_of_marker
from threedme_ros.nodes.messages import volume_from_message, volume_message
from threedme_ros.nodes.parameters import (
    ParameterError,
    Parameters,
    declare_parameters,
    parameter,
    read_parameters,
)
from threedme_ros.nodes.qos import RESULTS, VOLUMES, publisher_events, subscription_events
from threedme_ros.nodes.steady_timer import steady_timer
from threedme_ros.nodes.tally import Tally
from threedme_ros.nodes.watchdog import LeftBehind
from threedme_ros.nodes.worker import Worker
from threedme_ros.volume import VolumeError
from threedme_ros.volume_io import DEFAULT_MAX_VOXELS

LABELS_DEVICE = "labels"
TRANSFORM_DEPTH, TF_DEPTH = 10, 100
DIAGNOSTICS_PERIOD_S = 1.0
STOP_TIMEOUT_S = 5.0
MAX_STAMP_S = 2**31 - 1
BYTES_PER_MB = 1_000_000
COUNTS = (
    *("images_in", "transforms_in", "ignored_in", "labels_out", "surfaces_out", "transforms_out"),
    *("refused", "faults"),
)


@dataclass(frozen=True)
class IgtlBridgeParameters(Parameters):
    """Of the `igtl_bridge` node."""

    role: str = parameter("server", "wait for peers, or connect to one", choices=("server", "client"))
    host: str = parameter("127.0.0.1", "server: address to listen on; client: machine to connect to")
    port: int = parameter(DEFAULT_PORT, "TCP port; 0: a free one (server)", between=(0, 65535))
    frame_id: str = parameter("patient", "frame of the volumes, and of transforms whose name has no 'To'")
    image_device: str = parameter("", "take only IMAGEs of this device name; empty: all")
    stamp: str = parameter(
        "message", "stamp of what comes in: the sender's, or the time it arrived", choices=("message", "now")
    )
    publish_tf: bool = parameter(False, "also publish incoming transforms on /tf (needs tf2_msgs)")
    max_clients: int = parameter(8, "peers served at once", between=(1, 1000))
    max_message_mb: int = parameter(1024, "larger messages are refused at their header [MB]", between=(1, 2**20))
    max_voxels: int = parameter(DEFAULT_MAX_VOXELS, "larger volumes are refused [voxels]", between=(1, 2**40))
    check_crc: bool = parameter(True, "refuse a wrong checksum; false only for senders that leave it zero")
    stall_timeout_s: float = parameter(
        5.0, "a peer silent this long inside a message is disconnected [s]", between=(0.1, 3600.0)
    )


class IgtlBridge(Node):
    """Incoming messages are handled on the thread of their connection, outgoing ones on a worker a topic."""

    wanted = frozenset({"IMAGE", "TRANSFORM"})

    def __init__(self, **kwargs) -> None:
        super().__init__("igtl_bridge", **kwargs)
        declare_parameters(self, IgtlBridgeParameters)
        self._parameters = parameters = read_parameters(self, IgtlBridgeParameters)
        try:
            require_pyigtl()
        except ImportError as error:
            raise ParameterError(str(error)) from error
        if not parameters.frame_id:
            raise ParameterError("frame_id '': expected the name of the patient frame")
        self._log = EventLog(self.get_logger())
        self._tally = Tally(*COUNTS)
        self._sources = {"labels": 0, "anatomy/markers": 0}  # publishers that feed us
        self._shown: set[str] = set()  # structures the peers have a surface of
        warn = partial(self._log.warning, "qos_mismatch")
        self._volumes = self.create_publisher(
            CompressedImage, "volume", VOLUMES, event_callbacks=publisher_events(self, "volume", VOLUMES, warn)
        )
        self._transforms = self.create_publisher(TransformStamped, "igtl/transform_in", TRANSFORM_DEPTH)
        self._tf = self._tf_publisher() if parameters.publish_tf else None
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        limits = Limits(parameters.max_message_mb * BYTES_PER_MB, parameters.check_crc)
        self._links = Links(LinkSettings(limits, parameters.stall_timeout_s, parameters.max_clients), self)
        self._endpoint = self._open()
        self._left_behind = LeftBehind()
        self._workers = [Worker(self._send_labels, "igtl labels"), Worker(self._send_surfaces, "igtl surfaces")]
        inputs = ((CompressedImage, "labels"), (MarkerArray, "anatomy/markers"))
        for (kind, topic), worker in zip(inputs, self._workers, strict=True):
            events = subscription_events(self, topic, RESULTS, warn, partial(self._sources.__setitem__, topic))
            self.create_subscription(kind, topic, worker.submit, RESULTS, event_callbacks=events)
        self.create_subscription(TransformStamped, "igtl/transform_out", self._send_transform, TRANSFORM_DEPTH)
        steady_timer(self, DIAGNOSTICS_PERIOD_S, self._publish_diagnostics)

    def close(self) -> None:
        self._endpoint.close()
        for worker in self._workers:
            worker.stop(STOP_TIMEOUT_S, self._left_behind)
        self._log.flush(everything=True)

    @property
    def threads_left_behind(self) -> int:
        """Threads that hang: the process cannot join them."""
        return self._left_behind.count

    def connected(self, peer: str) -> None:
        self._log.info("connected", f"connected to {peer}", peer=peer)

    def disconnected(self, peer: str, reason: str, fault: bool) -> None:
        if not self.context.ok():  # the process is ending, and its log with it
            return
        if fault:
            self._tally.error("faults", f"{peer}: {reason}", time.monotonic())
            self._log.warning("disconnected", f"disconnected from {peer}: {reason}", peer=peer)
        else:
            self._log.info("no_connection", f"{peer}: {reason}", peer=peer)

    def received(self, frame: Frame, peer: str) -> None:
        """On the connection's thread. A message we cannot use costs a count and a log line, not the connection."""
        try:
            if frame.content is None or not self._is_for_us(frame):
                self._tally.count("ignored_in")
            elif frame.header.type == "IMAGE":
                self._receive_image(frame)
            else:
                self._receive_transform(frame)
        except VolumeError as error:
            reason = f"{peer}: {frame.header.type} {frame.header.device!r} refused: {error}"
            self._tally.error("refused", reason, time.monotonic())
            self._log.warning("message_refused", reason, peer=peer, type=frame.header.type)

    def _open(self) -> Server | Client:
        host, port = self._parameters.host, self._parameters.port
        if self._parameters.role == "client":
            self._log.info("connecting", f"connecting to {host}:{port}")
            try:
                return Client(self._links, host, port)
            except ValueError as error:
                raise ParameterError(f"host {host!r}: no machine has such a name: {error}") from error
        try:
            server = Server(self._links, host, port)
        except (OSError, ValueError) as error:
            raise ParameterError(f"host {host!r}, port {port}: cannot listen there: {error}") from error
        self._log.info("listening", f"listening on {host}:{server.port}", port=server.port)
        return server

    def _tf_publisher(self):
        try:
            from tf2_msgs.msg import TFMessage
        except ImportError as error:
            raise ParameterError("publish_tf True: needs tf2_msgs: apt install ros-$ROS_DISTRO-tf2-msgs") from error
        return self.create_publisher(TFMessage, "/tf", TF_DEPTH)

    def _is_for_us(self, frame: Frame) -> bool:
        return frame.header.type != "IMAGE" or self._parameters.image_device in ("", frame.header.device)

    def _receive_image(self, frame: Frame) -> None:
        parameters = self._parameters
        stamp = self._stamp(frame)
        volume = content.volume_from_image(frame, frame_id=parameters.frame_id, max_voxels=parameters.max_voxels)
        self._volumes.publish(volume_message(volume, stamp))
        self._tally.count("images_in")
        self._log.info(
            "volume_received", f"volume {volume.shape} from {frame.header.device!r}", device=frame.header.device
        )

    def _receive_transform(self, frame: Frame) -> None:
        names = poses.frame_names(frame.header.device, self._parameters.frame_id)
        pose = poses.pose_from_matrix(content.matrix_from_transform(frame), *names)
        message = TransformStamped(child_frame_id=pose.child)
        message.header.stamp, message.header.frame_id = self._stamp(frame), pose.parent
        x, y, z = pose.translation_m
        message.transform.translation = Vector3(x=x, y=y, z=z)
        x, y, z, w = pose.quaternion
        message.transform.rotation = Quaternion(x=x, y=y, z=z, w=w)
        self._transforms.publish(message)
        if self._tf is not None:
            self._tf.publish(self._tf.msg_type(transforms=[message]))
        self._tally.count("transforms_in")

    def _stamp(self, frame: Frame) -> Time:
        if self._parameters.stamp == "now":
            return self.get_clock().now().to_msg()
        seconds, nanoseconds = divmod(frame.header.stamp_ns, 1_000_000_000)
        if frame.header.stamp_ns == 0 or seconds > MAX_STAMP_S:
            raise ContentError(f"time stamp {seconds}.{nanoseconds:09d}: expected the acquisition time (or stamp: now)")
        return Time(sec=seconds, nanosec=nanoseconds)

    def _send_labels(self, message: CompressedImage) -> None:
        def pack() -> None:
            volume = volume_from_message(message, max_voxels=self._parameters.max_voxels)
            packed = content.image_bytes(volume, LABELS_DEVICE, _seconds(message.header.stamp))
            self._links.send(LABELS_DEVICE, packed, keep=True)
            self._tally.count("labels_out")

        self._guarded("labels", pack)

    def _send_surfaces(self, message: MarkerArray) -> None:
        for marker in message.markers:

            def pack(marker=marker) -> None:
                mesh = mesh_of_marker(marker)
                if mesh is None and marker.ns not in self._shown:
                    return
                if marker.ns not in self._shown and len(self._shown) >= MAX_KEYS:
                    raise ContentError(f"structure {marker.ns[:40]!r}: expected at most {MAX_KEYS} of them")
                vertices, faces = mesh if mesh is not None else ((), ())
                device = content.device_for(marker.ns)
                packed = content.polydata_bytes(vertices, faces, device, _seconds(marker.header.stamp))
                self._links.send(device, packed, keep=True)
                (self._shown.discard if mesh is None else self._shown.add)(marker.ns)
                self._tally.count("surfaces_out")

            self._guarded(f"anatomy/markers {marker.ns!r}", pack)

    def _send_transform(self, message: TransformStamped) -> None:
        def pack() -> None:
            shift, turn = message.transform.translation, message.transform.rotation
            parent, child = message.header.frame_id, message.child_frame_id
            pose = poses.Pose(parent, child, (shift.x, shift.y, shift.z), (turn.x, turn.y, turn.z, turn.w))
            device = poses.device_name(parent, child, self._parameters.frame_id)
            stamp_s = _seconds(message.header.stamp)
            self._links.send(device, content.transform_bytes(poses.matrix_from_pose(pose), device, stamp_s))
            self._tally.count("transforms_out")

        self._guarded("igtl/transform_out", pack)

    def _guarded(self, topic: str, pack) -> None:
        """What cannot be sent is refused with a reason; the worker lives on."""
        try:
            pack()
        except Exception as error:
            reason = f"{topic} not sent: {' '.join(str(error).split())[:500] or type(error).__name__}"
            self._tally.error("refused", reason, time.monotonic())
            self._log.warning("not_sent", reason, topic=topic)

    def _publish_diagnostics(self) -> None:
        self._log.flush()
        parameters, peers = self._parameters, self._links.count
        values = {"role": parameters.role, "address": f"{parameters.host}:{parameters.port}", "peers": peers}
        values |= {f"sources of {topic}": count for topic, count in self._sources.items()}
        status = self._tally.status(self.get_fully_qualified_name(), f"{peers} peers", time.monotonic(), values)
        self._diagnostics.publish(diagnostics_message(self.get_clock().now().to_msg(), status))


def _seconds(stamp: Time) -> float:
    return stamp.sec + stamp.nanosec / 1e9


def main(args: list[str] | None = None) -> int:
    return run_node(IgtlBridge, args)
