"""The volume player: files, DICOM folders, a sample CT or a phantom -> `volume`, as a scanner would send them.

| topic | type | QoS (reliability, durability, depth) | |
|---|---|---|---|
| `volume` | CompressedImage | reliable, volatile, 1 | stamped with the time of publishing |

Parameters: `threedme_ros.nodes.parameters.PlayerParameters`. With `count` reached (or `loop` false and the sources
played) the process ends once the last volume is acknowledged.
"""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import islice, repeat

from rclpy.duration import Duration
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage

from threedme_ros.intraoperative import resect
from threedme_ros.nodes.entry import Finished, run_node
from threedme_ros.nodes.messages import volume_message
from threedme_ros.nodes.parameters import ParameterError, PlayerParameters, declare_parameters, read_parameters
from threedme_ros.nodes.qos import VOLUMES, publisher_events
from threedme_ros.nodes.steady_timer import steady_timer
from threedme_ros.phantom import phantom
from threedme_ros.samples import SampleError, fetch_samples, sample_case
from threedme_ros.volume import Volume, VolumeError
from threedme_ros.volume_io import read_volume

MAX_RESECTION_MM = 30.0
ACKNOWLEDGE_TIMEOUT_S = 30.0
PROGRESS_PERIOD_S = 5.0
WAITING_PERIOD_S = 60.0
SUBSCRIBER_POLL_S = 0.1
SETTLE_S = 0.5
"""We see a subscriber a moment before it sees us; what is sent in between is lost to a volatile subscription."""


class VolumePlayer(Node):
    """Publishes one volume a period. Reads its sources before the first; ParameterError if one cannot be read."""

    def __init__(self, **kwargs) -> None:
        super().__init__("volume_player", **kwargs)
        declare_parameters(self, PlayerParameters)
        self._parameters = read_parameters(self, PlayerParameters)
        sources = [source.strip() for source in self._parameters.source.split(",") if source.strip()]
        if not sources:
            raise ParameterError(f"source {self._parameters.source!r}: expected at least one")
        self._volumes = [self._load(source) for source in sources]
        rounds = repeat(self._volumes) if self._parameters.loop else [self._volumes]
        self._queue = enumerate(islice((v for volumes in rounds for v in volumes), self._parameters.count or None))
        self._total = self._parameters.count or (0 if self._parameters.loop else len(self._volumes))
        self._encoded: dict[int, CompressedImage] = {}
        self._published = 0
        self._matched_s: float | None = None
        events = publisher_events(self, "volume", VOLUMES, self.get_logger().warning)
        self._publisher = self.create_publisher(CompressedImage, "volume", VOLUMES, event_callbacks=events)
        self._timer = steady_timer(self, SUBSCRIBER_POLL_S, self._begin)

    def _load(self, source: str) -> Volume:
        self.get_logger().info(f"reading {source}")
        try:
            volume = replace(load_source(source, self.get_logger().info), frame_id=self._parameters.frame_id)
            return volume.reoriented(self._parameters.orientation)[0] if self._parameters.orientation else volume
        except (VolumeError, SampleError) as error:
            raise ParameterError(f"source {source!r}: {error}") from error
        except (ValueError, KeyError) as error:
            raise ParameterError(f"orientation {self._parameters.orientation!r}: expected e.g. RAS or LPS") from error

    def _begin(self) -> None:
        if self._parameters.wait_for_subscriber and not self._publisher.get_subscription_count():
            self.get_logger().info("waiting for a subscriber", throttle_duration_sec=WAITING_PERIOD_S)
            return
        if self._matched_s is None:
            self._matched_s = time.monotonic()
        if self._parameters.wait_for_subscriber and time.monotonic() < self._matched_s + SETTLE_S:
            return
        self.destroy_timer(self._timer)
        self._timer = steady_timer(self, 1 / self._parameters.rate, self._publish_next)
        self._publish_next()

    def _publish_next(self) -> None:
        index, volume = next(self._queue, (None, None))
        if volume is None:
            self._finish()
            return
        began = time.perf_counter()
        message = self._message(index, volume)
        message.header.stamp = self.get_clock().now().to_msg()
        self._publisher.publish(message)
        self._published += 1
        of = f" of {self._total}" if self._total else ""
        self.get_logger().info(
            f"published {self._published}{of}: {volume.shape}, {len(message.data) / 1e6:.1f} MB, "
            f"{(time.perf_counter() - began) * 1e3:.0f} ms",
            throttle_duration_sec=PROGRESS_PERIOD_S,
        )
        if self._published == self._total:
            self._finish()

    def _message(self, index: int, volume: Volume) -> CompressedImage:
        """Encoded anew only if it changes; the stamp is set by the caller."""
        parameters = self._parameters
        stamp = self.get_clock().now().to_msg()
        if parameters.change_mm:
            radius_mm = min(index * parameters.change_mm, MAX_RESECTION_MM)
            return volume_message(resect(volume, radius_mm, parameters.seed), stamp, parameters.format)
        if id(volume) not in self._encoded:
            self._encoded[id(volume)] = volume_message(volume, stamp, parameters.format)
        return self._encoded[id(volume)]

    def _finish(self) -> None:
        self.destroy_timer(self._timer)
        self._publisher.wait_for_all_acked(Duration(seconds=ACKNOWLEDGE_TIMEOUT_S))
        raise Finished

    def close(self) -> None:
        self.get_logger().info(f"done: {self._published} volumes published")


def load_source(source: str, progress) -> Volume:
    """``phantom``, ``sample:A`` to ``sample:D``, or a path; ``progress(text)`` hears of a download."""
    if source == "phantom":
        return phantom()[0]
    if source.startswith("sample:"):
        return sample_case(source.removeprefix("sample:"), fetch_samples(progress=progress)).image()
    return read_volume(source)


def main(args: list[str] | None = None) -> int:
    return run_node(VolumePlayer, args)
