"""The demo's processes: player and perception node over real DDS, and what an application would receive from them."""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import CompressedImage, PointCloud2
from std_msgs.msg import String
from visualization_msgs.msg import MarkerArray

from threedme_ros.anatomy import Anatomy
from threedme_ros.geometry.surface import Mesh
from threedme_ros.nodes.marker_mesh import mesh_of_marker
from threedme_ros.nodes.messages import volume_from_message
from threedme_ros.nodes.processes import DemoError, NodeProcesses
from threedme_ros.nodes.qos import RESULTS
from threedme_ros.nodes.shapes import read_anatomy_cloud, read_obstacle_cloud
from threedme_ros.nodes.volume_player import load_source
from threedme_ros.phantom import phantom
from threedme_ros.pictures.results import DemoResults
from threedme_ros.samples import SampleError, fetch_samples, sample_case
from threedme_ros.volume import Volume

NODE = "/perception"
RATE_HZ = 2.0
START_TIMEOUT_S = 300.0
VOLUME_TIMEOUT_S = 300.0
OUTCOMES = ("segmented", "refused", "failed", "replaced", "ignored")
STAMPED = ("labels", "confidence", "anatomy/points", "anatomy/obstacles")


@dataclass(frozen=True)
class Case:
    """What the player plays, and what is known about it. ``truth``: labels on the image's grid, or None."""

    player_source: str
    text: str
    image: Volume
    labels: Callable[[Anatomy], Volume]


def demo_case(source: str, say: Callable[[str], None]) -> Case:
    """``sample:A`` ... or ``phantom``; a sample that cannot be fetched becomes the phantom, and ``text`` says so."""
    text = "phantom, an image made by a formula"
    if source.startswith("sample:"):
        try:
            case = sample_case(source.removeprefix("sample:"), fetch_samples(progress=say))
            return Case(source, case.source, load_source(source, say), case.labels)
        except SampleError as error:
            text = f"{text}, because the sample CT could not be fetched ({error})"
            say(f"no sample CT: {error}; using the phantom")
    elif source != "phantom":
        raise ValueError(f"demo source {source!r}: expected phantom or sample:A to sample:D")
    return Case("phantom", text, phantom()[0], lambda anatomy: phantom(anatomy=anatomy)[1])


def run_demo(
    *,
    source: str = "sample:A",
    checkpoint: str = "",
    engine: str = "auto",
    volumes: int = 5,
    record: str = "",
    say: Callable[[str], None] = print,
    progress: Callable[[int], None] = lambda segmented: None,
) -> DemoResults:
    """Play ``source`` until at least ``volumes`` are segmented; everything in the result came over DDS.

    record: folder for a recording of the node, or empty. say: gets lines of text. progress: gets the number of volumes
    segmented so far. Raises DemoError.
    """
    case = demo_case(source, say)
    with tempfile.TemporaryDirectory(prefix="threedme_demo_") as folder, NodeProcesses(Path(folder)) as processes:
        say(f"starting perception and player in ROS domain {processes.domain_id}")
        # the player repeats one CT: with updates on, the network would see it once and the latency would say nothing
        perception = processes.start(
            "perception", checkpoint=checkpoint, engine=engine, record=record, incremental=False
        )
        inbox = _Inbox(processes)
        inbox.wait(lambda: inbox.value("state") == "active", START_TIMEOUT_S, "the perception node to be active")
        player = processes.start("volume_player", source=case.player_source, rate=RATE_HZ)
        segmented = 0
        while segmented < volumes:
            inbox.wait(lambda: inbox.count("segmented") > segmented, VOLUME_TIMEOUT_S, "a volume to be segmented")  # noqa: B023
            segmented = inbox.count("segmented")
            progress(segmented)
        published = _published(processes.stop(player))
        inbox.wait(inbox.settled, VOLUME_TIMEOUT_S, "the last results")
        processes.stop(perception)
    return _results(case, inbox, published)


@dataclass
class _Inbox:
    """The newest message of every topic, and the latency of every volume."""

    processes: NodeProcesses
    latest: dict[str, object] = field(default_factory=dict)
    latencies_ms: dict[int, float] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kinds = dict.fromkeys(("labels", "confidence"), CompressedImage)
        kinds |= dict.fromkeys(("anatomy/points", "anatomy/obstacles"), PointCloud2)
        kinds |= {"anatomy/markers": MarkerArray, "label_info": String}
        for topic, kind in kinds.items():
            self.processes.node.create_subscription(kind, topic, self._keep(topic), RESULTS)
        self.processes.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def _keep(self, topic: str) -> Callable[[object], None]:
        return lambda message: self.latest.__setitem__(topic, message)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == NODE:
                self.values = {pair.key: pair.value for pair in status.values}
                if latency := self.value("stamp_to_publish_last_ms"):
                    self.latencies_ms.setdefault(self.count("segmented"), float(latency))

    def value(self, key: str) -> str:
        return self.values.get(key, "")

    def count(self, outcome: str) -> int:
        return int(self.value(f"volumes_{outcome}") or 0)

    def settled(self) -> bool:
        """No volume is on its way, and all results at hand are of one volume."""
        stamps = [self.latest[topic].header.stamp for topic in STAMPED if topic in self.latest]
        stamps += [m.header.stamp for m in getattr(self.latest.get("anatomy/markers"), "markers", [])[:1]]
        done = self.count("seen") == sum(self.count(outcome) for outcome in OUTCOMES)
        return done and len(stamps) == len(STAMPED) + 1 and all(s == stamps[0] for s in stamps)

    def wait(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        end = time.monotonic() + timeout_s
        while not condition():
            self.processes.check()
            words = self.processes.last_words()
            if time.monotonic() > end or "not inactive: " in words or "not active: " in words:
                raise DemoError(f"gave up waiting for {what}:\n{words}")
            self.processes.executor.spin_once(timeout_sec=0.2)


def _published(output: str) -> int:
    counts = re.findall(r"done: (\d+) volumes published", output)
    return int(counts[-1]) if counts else 0


def _results(case: Case, inbox: _Inbox, published: int) -> DemoResults:
    info = json.loads(inbox.latest["label_info"].data)
    anatomy = Anatomy.from_json(json.dumps(info["structures"]))
    pairs = {marker.ns: mesh_of_marker(marker) for marker in inbox.latest["anatomy/markers"].markers}
    return DemoResults(
        source=case.text,
        checkpoint=info["checkpoint"],
        engine=f"{info['engine']} {info['precision']} on {info['device']}",
        anatomy=anatomy,
        image=case.image,
        labels=volume_from_message(inbox.latest["labels"]),
        confidence=volume_from_message(inbox.latest["confidence"]),
        cloud=read_anatomy_cloud(inbox.latest["anatomy/points"]),
        meshes={name: Mesh(*pair) for name, pair in pairs.items() if pair},
        truth=case.labels(anatomy),
        obstacles=read_obstacle_cloud(inbox.latest["anatomy/obstacles"]),
        volumes_published=published,
        volumes_segmented=inbox.count("segmented"),
        volumes_refused=inbox.count("refused"),
        stamp_to_publish_ms=tuple(inbox.latencies_ms.values()),
        notes=(info["notice"],),
    )
