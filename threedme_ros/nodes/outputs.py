"""The results that the perception node publishes: latched, on lifecycle publishers, and recorded if there is a tape."""

from __future__ import annotations

from collections.abc import Callable

from sensor_msgs.msg import CompressedImage, Image, PointCloud2
from std_msgs.msg import String
from visualization_msgs.msg import MarkerArray

from threedme_ros.nodes.pipeline import Clouds, Results
from threedme_ros.nodes.qos import RESULTS, publisher_events
from threedme_ros.nodes.recording import Tape

OUTPUTS = {
    "labels": CompressedImage,
    "confidence": CompressedImage,
    "label_info": String,
    "trace": String,
    "overlay": Image,
    "anatomy/points": PointCloud2,
    "anatomy/obstacles": PointCloud2,
    "anatomy/markers": MarkerArray,
}


class Outputs:
    """Publishers of ``node`` between `open` and `close`; warn(line): a subscriber asks for what is not offered."""

    def __init__(self, node, tape: Tape, warn: Callable[[str], None]) -> None:
        self._node, self._tape, self._warn = node, tape, warn
        self._publishers: dict = {}
        self._label_info = ""

    def open(self) -> None:
        for topic, kind in OUTPUTS.items():
            events = publisher_events(self._node, topic, RESULTS, self._warn)
            publisher = self._node.create_lifecycle_publisher(kind, topic, RESULTS, event_callbacks=events)
            self._publishers[topic] = publisher

    def close(self) -> None:
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers = {}

    def results(self, results: Results, check: Callable[[], None]) -> None:
        """check(): before each message; it raises once they come too late."""
        self._send(
            check,
            {
                "trace": results.trace,
                "labels": results.labels,
                "confidence": results.confidence,
                "anatomy/points": results.clouds.points,
                "anatomy/obstacles": results.clouds.obstacles,
                "anatomy/markers": results.markers,
                "overlay": results.overlay,
            },
        )

    def clouds(self, clouds: Clouds, check: Callable[[], None]) -> None:
        """check: as for `results`."""
        self._send(check, {"anatomy/points": clouds.points, "anatomy/obstacles": clouds.obstacles})

    def obstacles_again(self, obstacles: PointCloud2) -> None:
        self._publishers["anatomy/obstacles"].publish(obstacles)

    def label_info(self, message: String, only_if_changed: bool = False) -> None:
        if not only_if_changed or message.data != self._label_info:
            self._send(lambda: None, {"label_info": message})
            self._label_info = message.data

    def _send(self, check: Callable[[], None], messages: dict[str, object]) -> None:
        for topic, message in messages.items():
            check()
            self._publishers[topic].publish(message)
        self._tape.put(messages)
