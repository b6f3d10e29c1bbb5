"""Volumes sent to a running perception node in another process, one after the other: latency, losses and memory."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import CompressedImage

from threedme_ros.nodes.messages import volume_message
from threedme_ros.nodes.process_facts import process_facts
from threedme_ros.nodes.processes import DemoError, NodeProcesses
from threedme_ros.nodes.qos import RESULTS, VOLUMES
from threedme_ros.volume import Volume

NODE = "/perception"
START_TIMEOUT_S = 300.0
VOLUME_TIMEOUT_S = 180.0
OUTCOMES = ("segmented", "refused", "failed", "replaced", "ignored", "overwritten")
SETTLE_S = 0.5
SETTLED_AFTER = 20
"""Volumes after which memory is expected to stay flat."""


@dataclass(frozen=True)
class Traffic:
    """latencies_ms: from a volume's stamp to its labels in our process, of every volume segmented after the first.
    published_ms: to the end of publishing, as the node's own diagnostics say. counts: volumes by outcome, as in
    ``OUTCOMES``, and "seen". sent: volumes. rss_mb: of the node after each volume. passes: by `Segmentation.update`."""

    latencies_ms: tuple[float, ...]
    published_ms: tuple[float, ...]
    sent: int
    counts: dict[str, int]
    passes: dict[str, int]
    rss_mb: tuple[float, ...]
    engine: str
    megabytes: float

    @property
    def lost(self) -> int:
        """Sent, and neither segmented nor counted as anything else."""
        return self.sent - sum(self.counts[outcome] for outcome in OUTCOMES)

    def percentile_ms(self, percent: float) -> float:
        return float(np.percentile(self.published_ms, percent))

    @property
    def rss_drift(self) -> float:
        """How far memory rose after `SETTLED_AFTER` volumes: mean of the last tenth over mean of the first, less 1."""
        flat = self.rss_mb[SETTLED_AFTER:] or self.rss_mb
        tenth = max(1, len(flat) // 10)
        return float(np.mean(flat[-tenth:]) / np.mean(flat[:tenth]) - 1)


def run_traffic(
    volumes: Sequence[Volume],
    count: int,
    *,
    progress: Callable[[int], None] = lambda sent: None,
    **parameters,
) -> Traffic:
    """``count`` volumes, ``volumes`` over and over, each sent when the results of the one before are here.

    parameters: of the perception node. Raises DemoError if a process ends or nothing comes back.
    """
    with (
        tempfile.TemporaryDirectory(prefix="threedme_traffic_") as folder,
        NodeProcesses(Path(folder), name="traffic", shared_memory=True) as processes,
    ):
        node = processes.start("perception", **parameters)
        probe = Probe(processes)
        probe.wait(lambda: probe.values.get("state") == "active", START_TIMEOUT_S, "the node to be active")
        probe.wait(lambda: probe.values.get("volume_sources") == "1", START_TIMEOUT_S, "the node to see our volumes")
        probe.rest(SETTLE_S)
        messages = [volume_message(volume, Time(sec=1)) for volume in volumes]
        latencies, published, rss = [], [], []
        for index in range(count):
            latency, of_node = probe.send(messages[index % len(messages)])
            rss.append(process_facts(node.popen.pid).rss_mb)
            if index or count == 1:  # the first waits for an engine of its shape
                latencies.append(latency)
                published.append(of_node)
            progress(index + 1)
        probe.wait(lambda: probe.count("seen") == count, VOLUME_TIMEOUT_S, "every volume to be seen")
        values = probe.values
        return Traffic(
            latencies_ms=tuple(latencies),
            published_ms=tuple(published),
            sent=count,
            counts={what: probe.count(what) for what in ("seen", *OUTCOMES)},
            passes={k.removeprefix("passes_"): int(v) for k, v in values.items() if k.startswith("passes_")},
            rss_mb=tuple(rss),
            engine=f"{values['engine']} {values['precision']}",
            megabytes=len(messages[0].data) / 1e6,
        )


class Probe:
    """A publisher of volumes, and what comes back."""

    def __init__(self, processes: NodeProcesses) -> None:
        self._processes = processes
        self.values: dict[str, str] = {}
        self._labels: tuple[Time, int] | None = None  # stamp, arrival in ns
        node = processes.node
        self._publisher = node.create_publisher(CompressedImage, "volume", VOLUMES)
        node.create_subscription(CompressedImage, "labels", self._on_labels, RESULTS)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    @property
    def accounted(self) -> int:
        """Volumes that the node has done with, in whatever way."""
        return sum(self.count(outcome) for outcome in OUTCOMES)

    def publish(self, message: CompressedImage) -> None:
        self._publisher.publish(message)

    def send(self, message: CompressedImage) -> tuple[float, float]:
        """Stamp and publish ``message``, wait for its labels and the node's account of it; both latencies in ms."""
        before = self.count("segmented")
        stamp = self._processes.node.get_clock().now()
        message.header.stamp = stamp.to_msg()
        self._publisher.publish(message)
        done = lambda: (  # noqa: E731
            self._labels and self._labels[0] == message.header.stamp and self.count("segmented") > before
        )
        self.wait(done, VOLUME_TIMEOUT_S, "the labels of a volume")
        return (self._labels[1] - stamp.nanoseconds) / 1e6, float(self.values["stamp_to_publish_last_ms"])

    def count(self, outcome: str) -> int:
        return int(self.values.get(f"volumes_{outcome}") or 0)

    def wait(self, condition: Callable[[], object], timeout_s: float, what: str) -> None:
        end = time.monotonic() + timeout_s
        while not condition():
            self._processes.check()
            if time.monotonic() > end or "not inactive: " in self._processes.last_words():
                raise DemoError(f"gave up waiting for {what}:\n{self._processes.last_words()}")
            self._processes.executor.spin_once(timeout_sec=0.5)

    def rest(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._processes.executor.spin_once(timeout_sec=0.05)

    def _on_labels(self, message: CompressedImage) -> None:
        self._labels = message.header.stamp, self._processes.node.get_clock().now().nanoseconds

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == NODE:
                self.values = {pair.key: pair.value for pair in status.values}
