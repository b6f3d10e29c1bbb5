"""Subscribers that never read, die, come late or ask for what is not offered; a source that offers too little."""

import subprocess
import sys
from pathlib import Path

from domain import Process
from perceiving import TYPES
from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from scenario import Scenario
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import String
from theatre import SMALL, killed, stopped

WHILE_STOPPED = 6
FOLDER = Path(__file__).parent


def reader(theatre) -> Process:
    """A process that reads everything; it has got the anatomy that is latched."""
    log = theatre.folder / "reader.log"
    environment = {**theatre.domain.environment, "PYTHONPATH": str(FOLDER.parent)}
    with log.open("w") as file:
        popen = subprocess.Popen(
            [sys.executable, FOLDER / "reader.py"], env=environment, stdout=file, stderr=subprocess.STDOUT
        )
    return Process(popen, log)


def gets(process: Process, stamp) -> None:
    for topic, kind in TYPES.items():
        process.wait_for(f"{topic} {'-' if kind is String else stamp.sec}\n")


class WithReader(Scenario):
    process = None

    def begin(self, theatre):
        stamp = theatre.node.segment(SMALL)
        self.process = reader(theatre)
        gets(self.process, stamp)

    def clear(self, theatre):
        if self.process:
            killed(self.process)


class NeverReads(WithReader):
    name = "a subscriber that never reads (SIGSTOP)"
    expected = "others are served and answered as before; once it goes on it gets the newest"

    def inject(self, theatre, chance):
        self.begin(theatre)
        theatre.domain.rest(chance.uniform(0.0, 0.3))
        stopped(self.process, True)
        for _ in range(WHILE_STOPPED):
            theatre.node.segment(SMALL)
        theatre.answers()
        self.stamp = theatre.node.segment(SMALL)

    def verify(self, theatre):
        theatre.serves(self.stamp)
        theatre.settled()
        stopped(self.process, False)
        gets(self.process, self.stamp)
        return f"{WHILE_STOPPED} volumes segmented meanwhile, the newest read afterwards"


class SubscriberKilled(WithReader):
    name = "a subscriber killed (SIGKILL) amid results"
    expected = "others are served as before"

    def inject(self, theatre, chance):
        self.begin(theatre)
        theatre.send()
        theatre.domain.rest(chance.uniform(0.0, 0.5))
        killed(self.process)
        self.stamp = theatre.node.segment(SMALL)

    def verify(self, theatre):
        theatre.serves(self.stamp)
        theatre.settled()
        return "segmented and latched on"


class LateJoiner(WithReader):
    name = "a process that joins late"
    expected = "it gets the last good anatomy of every topic"

    def inject(self, theatre, chance):
        theatre.domain.rest(chance.uniform(0.0, 1.0))
        self.begin(theatre)

    def verify(self, theatre):
        return f"got {len(TYPES)} topics with the stamp of the last volume"


class Mismatch(Scenario):
    """Somebody whose QoS does not match ours. ``words``: what is said of it."""

    words: tuple[str, ...]

    def inject(self, theatre, chance):
        theatre.refuses()  # what an earlier one left in last_error is gone
        assert self.words[0] not in theatre.node.diagnostics["last_error"]
        theatre.node.segment(SMALL)
        self.join(theatre)

    def join(self, theatre) -> None:
        raise NotImplementedError

    def verify(self, theatre):
        text = theatre.tells(self.words[0], "last_error")
        theatre.logged(self.words[0])
        for word in self.words:
            assert word in text, text
        theatre.serves(theatre.node.segment(SMALL))
        return text.partition(";")[0]


class WeakSource(Mismatch):
    name = "mismatched QoS: a best-effort source"
    expected = "log and diagnostics name both policies; the other source goes on"
    words = ("incompatible RELIABILITY with a publisher", "this node requests RELIABLE, VOLATILE")

    def join(self, theatre):
        best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        self.publisher = theatre.domain.node.create_publisher(CompressedImage, "/volume", best_effort)

    def clear(self, theatre):
        theatre.domain.node.destroy_publisher(self.publisher)


class DemandingSubscriber(Mismatch):
    name = "mismatched QoS: a subscriber that asks for a deadline"
    expected = "log and diagnostics name the policy; others are served as before"
    words = ("incompatible DEADLINE with a subscriber",)

    def join(self, theatre):
        wanted = QoSProfile(
            depth=1,
            reliability=ReliabilityPolicy.RELIABLE,
            durability=DurabilityPolicy.TRANSIENT_LOCAL,
            deadline=Duration(seconds=1),
        )
        self.subscription = theatre.domain.node.create_subscription(CompressedImage, "/labels", print, wanted)

    def clear(self, theatre):
        theatre.domain.node.destroy_subscription(self.subscription)


SCENARIOS = (NeverReads, SubscriberKilled, LateJoiner, WeakSource, DemandingSubscriber)
