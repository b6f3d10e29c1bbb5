"""Where faults happen: one perception node in its own process, and everything a fault needs around it."""

from __future__ import annotations

import os
import signal
import time
from enum import IntEnum
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticStatus
from domain import Domain, Process, random_weights, shared_memory, sweep_shared_memory
from lifecycle_msgs.msg import Transition
from log_lines import throttled, times_said
from perceiving import TYPES, Perceiving, next_stamp
from runtime import Runtimes

from threedme_ros.nodes.messages import volume_message
from threedme_ros.nodes.process_facts import process_facts
from threedme_ros.nodes.processes import PROFILES
from threedme_ros.nodes.qos import RESULTS
from threedme_ros.phantom import phantom
from threedme_ros.share import share_path
from threedme_ros.volume_io import write_volume

NAME, BESIDE = "/perception", "/beside"
SMALL = phantom((20, 16, 18), (18.0, 16.0, 24.0))[0]
LARGE = phantom((96, 80, 64), (3.75, 3.0, 6.5))[0]
STALE_AFTER_S = 4.0
HANG_AFTER_S = 5.0
BUILD_TIMEOUT_S = 600.0
MAX_HANGS = 1
MAX_VOXELS = 1_000_000
START_TIMEOUT_S = 600.0
WAIT_S = 240.0
"""For what takes seconds on an idle machine: these tests wait for events, and a busy machine must not fail them."""
CLEAN_EXIT_S = 60.0
DIAGNOSTICS_PERIOD_S = 1.0
"""Callbacks never block: the node tells of itself every second, so its answers may take no longer, on average."""
QUESTIONS = 5
LEARNED = 6
"""Volumes after which the watchdog knows what one takes."""
GROWTH = {"threads": 3, "fds": 12}
"""What may be more than at first: a participant that died is forgotten by Fast DDS only after 20 s."""
OUTCOMES = ("segmented", "refused", "failed", "replaced", "ignored")
WELL = ("active", "openvino", "0")
"""State, engine and hangs of a node that nothing has befallen."""


class Afterwards(IntEnum):
    """How far from `WELL` a fault may leave the node; what is more than that is a failure."""

    AS_BEFORE = 0
    OTHER_ENGINE = 1
    """Active, on another engine or with hangs counted."""
    OTHER_STATE = 2
    """Alive, and to be configured anew."""
    ENDED = 3
    """Finalized, dead or another process, and to be started again."""


class Theatre:
    """``node`` runs and segments whenever a scenario begins; one that a scenario ended is started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.segments_before = shared_memory()
        self.domain = Domain(folder)
        self.checkpoint = random_weights(folder / "random.safetensors")
        self.volume_file = folder / "small.nii"
        write_volume(self.volume_file, SMALL)
        self.runtimes = Runtimes(folder / "runtimes")
        self.node: Perceiving | None = None
        self.beside: Perceiving | None = None
        self.starts = 0
        self.own_segments: frozenset[str] = frozenset()
        """Shared memory that the node made when it started."""
        self.short_build_timeout_s = 0.0
        """As short as a build may be allowed here: three times what a whole start takes."""
        self._began_s, self._there_before = 0.0, set()
        self._output_before = 0
        self._at_first: dict[str, int] = {}
        self._process: Process | None = None
        self._injected_s = 0.0
        self._elsewhere, self._played = 0, False

    def close(self) -> None:
        self.domain.close()
        sweep_shared_memory(self.segments_before)

    # The node.

    def start(self, *arguments: str, environment: dict | None = None, **parameters) -> Process:
        """A perception node that configures and activates itself, unless told otherwise."""
        self.starts += 1
        self._began_s, self._there_before = time.monotonic(), shared_memory()
        self.runtimes.heal()
        given = {
            "checkpoint": self.checkpoint,
            "threads": 1,
            "device": "cpu",
            "max_voxels": MAX_VOXELS,
            "stale_after_s": STALE_AFTER_S,
            "hang_after_s": HANG_AFTER_S,
            "build_timeout_s": BUILD_TIMEOUT_S,
            "max_hangs": MAX_HANGS,
        } | parameters
        # As the launch files do. With Fast DDS's own half a megabyte a live reader sometimes waits in vain for the
        # overlay (1.5 MB) while another hangs or is dead: in 3 of 13 such faults, and in none of 40 with this.
        profile = {PROFILES: str(share_path("config/fastdds_shm.xml"))}
        environment = profile | self.runtimes.environment | (environment or {})
        return self.domain.start("perception", *arguments, environment=environment, **given)

    def begin(self) -> None:
        """A node that is `ready`, and all that is compared afterwards."""
        self.ready()
        self._process, self._output_before = self.node.process, len(self.node.process.output())
        self._elsewhere, self._played = self._from_elsewhere, False
        self._injected_s = time.monotonic()

    def ready(self) -> None:
        """A node that is active, runs its preferred engine and has segmented a few volumes."""
        if self.node is None or not self.alive:
            self.adopt(self.start())
        said = self.node.refresh()
        if said["state"] == "finalized":
            killed(self.node.process)
            self.adopt(self.start())
            said = self.node.refresh()
        if (said["state"], said.get("engine"), said.get("hangs")) != WELL:
            self.reconfigure()
        if not self._at_first:
            for _ in range(LEARNED):
                self.node.segment(SMALL)
            self._at_first = self.facts()

    def adopt(self, process: Process) -> None:
        """``process`` is the node from now on."""
        if self.node is None:
            self.node = Perceiving(self.domain, process, NAME)
        else:  # the same topics, another process
            self.node.process = process
            self.node.forget()
        self._at_first, self._output_before, self._elsewhere = {}, 0, 0
        self.connected()
        self.own_segments = process_facts(self.pid).segments - self._there_before
        took_s = time.monotonic() - self._began_s
        self.short_build_timeout_s = max(8.0, 3 * took_s, self.short_build_timeout_s)

    def adopt_beside(self, process: Process) -> Perceiving:
        """``process`` is the node in the namespace `BESIDE` from now on."""
        if self.beside is None:
            self.beside = Perceiving(self.domain, process, f"{BESIDE}{NAME}")
        self.beside.process = process
        self.beside.forget()
        self.domain.spin_until(lambda: self.beside.diagnostics, START_TIMEOUT_S, "no diagnostics")
        return self.beside

    def reconfigure(self) -> None:
        """With engines that work, from whatever state."""
        self.runtimes.heal()
        if self.domain.state(NAME) == "active":
            self.transition(Transition.TRANSITION_DEACTIVATE)
        if self.domain.state(NAME) == "inactive":
            self.transition(Transition.TRANSITION_CLEANUP)
        self.transition(Transition.TRANSITION_CONFIGURE)
        self.transition(Transition.TRANSITION_ACTIVATE)
        self.connected()

    def connected(self) -> None:
        self.said("state", "active", START_TIMEOUT_S)
        self.node.wait_for_subscription()
        self.domain.rest(0.5)  # a dead node's subscription may be the one that we see

    def transition(self, transition: int) -> None:
        assert self.domain.change_state(NAME, transition), f"transition {transition} failed: {self.node.diagnostics}"

    def output(self) -> str:
        """What the node printed since the last `begin`."""
        return self.node.process.output()[self._output_before :]

    @property
    def pid(self) -> int:
        return self.node.process.popen.pid

    @property
    def alive(self) -> bool:
        return self.node.process.popen.poll() is None

    def ended(self, how: int) -> int:
        """Send the signal ``how`` to the node; returns its exit status."""
        self.node.process.popen.send_signal(how)
        return self.node.process.popen.wait(CLEAN_EXIT_S)

    def facts(self) -> dict[str, int]:
        """Threads, those left behind aside, and descriptors of the node."""
        facts = process_facts(self.pid)
        return {"threads": facts.threads - int(self.node.diagnostics["threads_left_behind"]), "fds": facts.fds}

    # What is sent, and what is said.

    def send(self, volume=SMALL, stamp=None):
        return self.node.send(volume_message(volume, stamp or next_stamp()))

    def said(self, key: str, value: str, timeout_s: float = WAIT_S) -> None:
        """Wait until diagnostics show it."""
        self.domain.spin_until(
            lambda: self.node.diagnostics.get(key) == value,
            timeout_s,
            f"{key} is not {value!r}: {self.node.diagnostics}",
        )

    def tells(self, text: str, key: str = "message", timeout_s: float = WAIT_S) -> str:
        """Wait until diagnostics hold ``text``; returns the whole."""
        self.domain.spin_until(
            lambda: text in self.node.diagnostics.get(key, ""), timeout_s, lambda: f"{text!r} is not in the {key}"
        )
        return self.node.diagnostics[key]

    def counted(self, what: str, least: int, timeout_s: float = WAIT_S) -> None:
        self.domain.spin_until(
            lambda: self.node.count(what) >= least, timeout_s, lambda: f"not {least} {what}: {self.node.diagnostics}"
        )

    @property
    def accounted(self) -> int:
        """Volumes that the node has seen, or knows to have missed."""
        return self.node.count("seen") + self.node.count("overwritten")

    def answers(self) -> None:
        """The node answers after each of some volumes, whatever it is working on."""
        began = time.monotonic()
        for _ in range(QUESTIONS):
            self.send()
            self.domain.state(NAME)
        took_s = time.monotonic() - began
        assert took_s < QUESTIONS * DIAGNOSTICS_PERIOD_S, f"{QUESTIONS} answers amid volumes took {took_s:.1f} s"

    def refuses(self) -> None:
        """It refuses a volume without a frame, which takes the place of what was its last error."""
        refused = self.node.count("refused")
        message = volume_message(SMALL, next_stamp())
        message.header.frame_id = ""
        self.node.send(message)
        self.counted("refused", refused + 1)

    def logged(self, text: str, timeout_s: float = WAIT_S) -> None:
        """Wait until the log holds ``text`` since the last `begin`."""
        self.domain.spin_until(lambda: text in self.output(), timeout_s, lambda: f"{text!r} is not in the log")

    def throttled(self, event: str) -> None:
        """The log has few lines of ``event``."""
        throttled(self.output(), event, time.monotonic() - self._injected_s)

    def told_all(self, event: str, outcome: str) -> None:
        """The log comes to say ``event`` for every volume of that ``outcome``, in lines or in counts."""
        total = self.node.count(outcome)  # of the node's whole life: earlier ones may be told of only now
        said = lambda: times_said(self.node.process.output(), event)  # noqa: E731
        self.domain.spin_until(
            lambda: said() == total, WAIT_S, lambda: f"{total} {outcome}, {event} said {said()} times"
        )

    def settled(self) -> None:
        """Every volume that arrived is accounted for, once nothing is in work."""

        def settled() -> bool:
            said = self.node.diagnostics
            if said.get("volumes_in_work", "0") != "0":
                return False
            return self.node.count("seen") == sum(self.node.count(what) for what in OUTCOMES)

        self.domain.spin_until(settled, WAIT_S, lambda: f"seen and outcomes differ: {self.node.diagnostics}")

    def serves(self, stamp) -> None:
        """A late joiner gets the anatomy of that stamp, whole."""
        for topic in ("labels", "anatomy/points", "anatomy/obstacles", "anatomy/markers"):
            message = self.domain.late(TYPES[topic], f"/{topic}", RESULTS)
            header = message.markers[0].header if topic == "anatomy/markers" else message.header
            assert header.stamp == stamp, f"{topic} of {header.stamp}, not of {stamp}"

    @property
    def last_good(self):
        return self.node.received["labels"][-1].header.stamp

    # After every fault.

    def recovered(self, most: Afterwards) -> str:
        """The node is no further from well than ``most``. Brought back from there, it segments the next good volume, a
        late joiner gets it, nothing is uncounted, nothing grows."""
        assert (left := self._left()) <= most, f"left {left.name}: {self._words()}"
        if most:
            self.ready()
        stamp = self.node.segment(SMALL)
        well(self.node.diagnostics)
        self.serves(stamp)
        self.settled()
        self._accounted()
        facts = {}

        def flat() -> bool:
            facts.update(self.facts())
            return all(facts[what] <= self._at_first[what] + most for what, most in GROWTH.items())

        self.domain.spin_until(flat, WAIT_S, lambda: f"grew: {self._at_first} before, now {facts}")
        return "a following volume was segmented and latched"

    def _left(self) -> Afterwards:
        """How the fault left the node."""
        if not self.alive or self.node.process is not self._process:
            return Afterwards.ENDED
        said = self.node.refresh()
        now = said["state"], said.get("engine"), said.get("hangs")
        if now == WELL:
            return Afterwards.AS_BEFORE
        if now[0] == WELL[0]:
            return Afterwards.OTHER_ENGINE
        return Afterwards.ENDED if now[0] == "finalized" else Afterwards.OTHER_STATE

    def _words(self) -> str:
        status = self.node.process.popen.poll()
        return f"exit status {status}: {self.output()[-2000:]}" if status is not None else f"{self.node.diagnostics}"

    @property
    def _from_elsewhere(self) -> int:
        """Volumes that the node has, or knows to have missed, beside those that we sent it."""
        return self.accounted - self.node.sent

    def _accounted(self) -> None:
        """Every volume that was sent was seen, or is known to be overwritten; asked after one that was segmented."""
        self.domain.spin_until(
            lambda: (
                self._from_elsewhere == self._elsewhere or (self._played and self._from_elsewhere > self._elsewhere)
            ),
            WAIT_S,
            lambda: f"{self.node.sent} sent, {self._elsewhere} from elsewhere before: {self.node.diagnostics}",
        )

    def player(self, **parameters) -> Process:
        """A volume player that sends the small volume; the node hears it."""
        self._played = True
        process = self.domain.start("volume_player", source=self.volume_file, rate=5.0, **parameters)
        seen = self.node.count("seen")
        self.counted("seen", seen + 1, START_TIMEOUT_S)
        return process


def well(said: dict) -> None:
    """Diagnostics of a node whose last volume was segmented; on a busy machine that may be long ago."""
    assert said["anatomy"] != "none", said
    assert said["level"] != DiagnosticStatus.ERROR and "last volume" not in said["message"], said


def stopped(process: Process, on: bool) -> None:
    """Freeze ``process``, or let it go on."""
    os.kill(process.popen.pid, signal.SIGSTOP if on else signal.SIGCONT)


def killed(process: Process) -> None:
    if process.popen.poll() is None:
        process.popen.kill()
        process.popen.wait()
