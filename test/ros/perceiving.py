"""A running perception node as a test sees it: what it published, what it says of itself, and volumes to send it."""

import itertools
from dataclasses import dataclass, field

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import CompressedImage, Image, PointCloud2
from std_msgs.msg import String
from visualization_msgs.msg import MarkerArray

from threedme_ros.nodes.messages import volume_message
from threedme_ros.nodes.qos import RESULTS, VOLUMES
from threedme_ros.volume import Volume

TYPES = {
    "labels": CompressedImage,
    "confidence": CompressedImage,
    "label_info": String,
    "trace": String,
    "overlay": Image,
    "anatomy/points": PointCloud2,
    "anatomy/obstacles": PointCloud2,
    "anatomy/markers": MarkerArray,
}
_seconds = itertools.count(1000)


@dataclass
class Perceiving:
    """``name``: the node's full name. ``received``: what came, by topic. ``sent``: volumes, to this process."""

    domain: object
    process: object
    name: str
    received: dict[str, list] = field(default_factory=dict)
    sent: int = 0

    def __post_init__(self) -> None:
        namespace = self.name.rsplit("/", 1)[0]
        self.received = {t: self.domain.collect(kind, f"{namespace}/{t}", RESULTS) for t, kind in TYPES.items()}
        self._diagnostics = self.domain.collect(DiagnosticArray, "/diagnostics", 10)
        self.publisher = self.domain.node.create_publisher(CompressedImage, f"{namespace}/volume", VOLUMES)

    def wait_for_subscription(self) -> None:
        """Until the node sees our publisher, too: what is sent before that is lost."""
        connected = lambda: self.publisher.get_subscription_count() and int(self.diagnostics.get("volume_sources", 0))  # noqa: E731
        self.domain.spin_until(connected, 120.0, "volume is not subscribed")

    def forget(self) -> None:
        """What was received so far: another process has taken the node's place."""
        for messages in (self._diagnostics, *self.received.values()):
            messages.clear()
        self.sent = 0

    def refresh(self) -> dict[str, str]:
        """The next diagnostics that come."""
        self._diagnostics.clear()
        self.domain.spin_until(lambda: self.diagnostics, 240.0, "no diagnostics")
        return self.diagnostics

    @property
    def told(self) -> int:
        """How often the node told of itself, since `refresh` at most."""
        return sum(self.name == status.name for array in self._diagnostics for status in array.status)

    @property
    def diagnostics(self) -> dict[str, str]:
        """The newest values, with ``level`` and ``message``; empty before the first."""
        return self._said(self.name)

    def said_of(self, part: str) -> dict[str, str]:
        """As `diagnostics`, of a part of the node that has a status of its own."""
        return self._said(f"{self.name}: {part}")

    def _said(self, name: str) -> dict[str, str]:
        for array in reversed(self._diagnostics):
            for status in array.status:
                if status.name == name:
                    values = {pair.key: pair.value for pair in status.values}
                    return {**values, "level": status.level, "message": status.message}
        return {}

    def count(self, what: str) -> int:
        return int(self.diagnostics.get(f"volumes_{what}", 0))

    def send(self, message: CompressedImage, publisher=None) -> Time:
        """publisher: another one than ours."""
        (publisher or self.publisher).publish(message)
        self.sent += 1
        return message.header.stamp

    def segment(self, volume: Volume, format: str = "nifti") -> Time:
        """Publish, and wait until every result for its stamp is here."""
        message = volume_message(volume, next_stamp(), format)
        segmented = self.count("segmented")
        stamp = self.send(message)
        stamped = [topic for topic in TYPES if topic not in ("label_info", "trace", "anatomy/markers")]
        self.domain.spin_until(
            lambda: (
                all(self.received[t] and self.received[t][-1].header.stamp == stamp for t in stamped)
                and self.received["anatomy/markers"]
                and self.received["anatomy/markers"][-1].markers[0].header.stamp == stamp
                and self.count("segmented") > segmented
            ),
            240.0,
            lambda: (
                f"no results for {stamp.sec}, segmented before: {segmented}, last are "
                f"{ {t: self.received[t][-1].header.stamp.sec if self.received[t] else None for t in stamped} }; "
                f"{self.diagnostics}"
            ),
        )
        return stamp

    def last(self, topic: str):
        return self.received[topic][-1]


def next_stamp() -> Time:
    """Another one at each call, from the test's own little clock."""
    return Time(sec=next(_seconds), nanosec=250_000_000)


def points_of(cloud: PointCloud2) -> np.ndarray:
    """A structured array (N,) by the message's own description of its fields."""
    formats = {1: "i1", 2: "u1", 7: "<f4"}
    kind = np.dtype(
        {
            "names": [f.name for f in cloud.fields],
            "formats": [formats[f.datatype] for f in cloud.fields],
            "offsets": [f.offset for f in cloud.fields],
            "itemsize": cloud.point_step,
        }
    )
    return np.frombuffer(cloud.data, kind)


def xyz(points: np.ndarray) -> np.ndarray:
    """(N, 3) m."""
    return np.stack([points["x"], points["y"], points["z"]], -1)
