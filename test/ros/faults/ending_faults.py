"""Ends of the node's process, at random moments: killed, interrupted, shut down, while it works or hangs."""

import signal
import time

from domain import shared_memory, sweep_shared_memory
from engine_faults import hang
from perceiving import next_stamp
from scenario import Scenario
from theatre import BESIDE, CLEAN_EXIT_S, LARGE, NAME, SMALL, START_TIMEOUT_S, WELL, Afterwards, killed, well
from transition_faults import CLEANUP, DEACTIVATE, NUMBERS, SHUTDOWNS, refuses_what_does_not_fit

from threedme_ros.nodes.messages import volume_message


def work(theatre, chance) -> None:
    """Some volumes on their way, at a random moment of the work on them."""
    theatre.send(LARGE)
    if chance.random() < 0.5:
        theatre.send(SMALL)
    theatre.domain.rest(chance.uniform(0.0, 1.0))


def left_no_segment(segments: frozenset[str]) -> None:
    """Of those that were the node's own, none is there any more; a port stays as long as anybody sends to it."""
    left = {name for name in segments & shared_memory() if "port" not in name}
    assert not left, f"left in /dev/shm: {sorted(left)}"


class Killed(Scenario):
    name = "node killed (SIGKILL) and started again"
    expected = "the new process configures, activates and serves; nothing of the old one is in its way"
    afterwards = Afterwards.ENDED

    def inject(self, theatre, chance):
        work(theatre, chance)
        killed(theatre.node.process)

    def verify(self, theatre):
        began = time.monotonic()
        theatre.adopt(theatre.start())
        stamp = theatre.node.segment(SMALL)
        theatre.serves(stamp)
        return f"active and serving {time.monotonic() - began:.0f} s after the restart"


class KilledAtStart(Scenario):
    name = "node killed (SIGKILL) while it builds its engine or configures"
    expected = "the next one, with the same cache, builds, activates and serves; nothing is damaged or locked"
    slow = True
    process = None

    def inject(self, theatre, chance):
        cache = theatre.folder / f"cache_{chance.randrange(10**9)}"
        self.environment = {"XDG_CACHE_HOME": str(cache)}
        self.building = chance.random() < 0.5
        self.process = self.start(theatre)
        if self.building:
            theatre.runtimes.tell("openvino", "build")
            theatre.domain.spin_until(lambda: theatre.runtimes.busy("openvino"), START_TIMEOUT_S, "no engine is built")
        else:
            time.sleep(chance.uniform(1.0, 6.0))
        killed(self.process)

    def start(self, theatre):
        return theatre.start("-r", f"__ns:={BESIDE}", environment=self.environment)

    def verify(self, theatre):
        self.process = self.start(theatre)  # which tells the engines to work
        node = theatre.adopt_beside(self.process)
        node.wait_for_subscription()
        theatre.domain.rest(0.5)
        node.segment(SMALL)
        said = node.refresh()
        well(said)
        assert (said["state"], said["engine"], said["hangs"]) == WELL, said
        output = self.process.output()
        assert "damaged" not in output and "Traceback" not in output, output[-2000:]
        return f"killed while it {'built' if self.building else 'started'}; the next one built and segmented"

    def clear(self, theatre):
        theatre.runtimes.heal()
        if self.process:
            killed(self.process)


class Signalled(Scenario):
    """``how``: the signal, during inference."""

    how: int
    expected = "exit status 0, no traceback, no shared memory left"
    afterwards = Afterwards.ENDED

    def inject(self, theatre, chance):
        self.own = theatre.own_segments
        work(theatre, chance)
        self.status = theatre.ended(self.how)

    def verify(self, theatre):
        output = theatre.output()
        assert self.status == 0, f"exit status {self.status}: {output[-2000:]}"
        assert "Traceback" not in output, output[-2000:]
        left_no_segment(self.own)
        return "exit status 0, nothing left"


class Interrupted(Signalled):
    name = "SIGINT during inference"
    how = signal.SIGINT


class Terminated(Signalled):
    name = "SIGTERM during inference"
    how = signal.SIGTERM


class TerminatedInFlood(Signalled):
    name = "SIGTERM while a flood of refused volumes arrives"
    how = signal.SIGTERM
    slow = True

    def inject(self, theatre, chance):
        self.own = theatre.own_segments
        theatre.refuses()
        message = volume_message(SMALL, next_stamp())
        message.header.frame_id = ""
        process, began = theatre.node.process.popen, time.monotonic()
        at_s, signalled = chance.uniform(0.2, 1.0), False
        while process.poll() is None and time.monotonic() - began < CLEAN_EXIT_S:
            theatre.node.send(message)
            if not signalled and time.monotonic() - began > at_s:
                process.send_signal(self.how)
                signalled = True
            time.sleep(0.001)
        self.status = process.poll()


class ShutDown(Scenario):
    name = "lifecycle shutdown during inference"
    expected = "finalized, where every transition is refused; then SIGINT ends it with status 0"
    afterwards = Afterwards.ENDED

    def inject(self, theatre, chance):
        self.own = theatre.own_segments
        work(theatre, chance)
        theatre.transition(SHUTDOWNS["active"])
        numbers = chance.sample(NUMBERS, 5)
        self.refused = refuses_what_does_not_fit(theatre, "finalized", numbers)

    def verify(self, theatre):
        assert theatre.domain.state(NAME) == "finalized"
        assert theatre.ended(signal.SIGINT) == 0
        assert "Traceback" not in theatre.output()
        left_no_segment(self.own)
        return f"finalized, {self.refused} transitions refused there, exit status 0"


class ShutDownIdle(Scenario):
    """``state``: from where. ``path``: the transitions that lead there."""

    state: str
    path: tuple[int, ...]
    slow = True
    expected = ShutDown.expected
    afterwards = Afterwards.ENDED

    def inject(self, theatre, chance):
        self.own = theatre.own_segments
        theatre.node.segment(SMALL)
        for transition in self.path:
            theatre.transition(transition)
        theatre.transition(SHUTDOWNS[self.state])
        self.refused = refuses_what_does_not_fit(theatre, "finalized", chance.sample(NUMBERS, 5))

    verify = ShutDown.verify


class ShutDownInactive(ShutDownIdle):
    name = "lifecycle shutdown from inactive"
    state, path = "inactive", (DEACTIVATE,)


class ShutDownUnconfigured(ShutDownIdle):
    name = "lifecycle shutdown from unconfigured"
    state, path = "unconfigured", (DEACTIVATE, CLEANUP)


class EndsWhileItHangs(Scenario):
    name = "SIGTERM or SIGINT while the engine hangs"
    expected = f"exit status 0 within {CLEAN_EXIT_S:.0f} s all the same, and it says that a thread hangs"
    slow = True
    afterwards = Afterwards.ENDED

    def inject(self, theatre, chance):
        self.own = theatre.own_segments
        hang(theatre, "openvino")
        if chance.random() < 0.5:
            theatre.said("hangs", "1")
        began = time.monotonic()
        self.status = theatre.ended(chance.choice((signal.SIGTERM, signal.SIGINT)))
        self.took_s = time.monotonic() - began

    def verify(self, theatre):
        output = theatre.output()
        assert self.status == 0, f"exit status {self.status}: {output[-2000:]}"
        assert "threads that hang" in output, output[-2000:]
        left_no_segment(self.own)
        return f"exit status 0 after {self.took_s:.0f} s"

    def clear(self, theatre):
        theatre.runtimes.heal()


class EndsAtStart(Scenario):
    name = "SIGTERM or SIGINT while the node starts"
    expected = "it ends within seconds, by itself or by the signal, without a crash"
    slow = True

    def inject(self, theatre, chance):
        process = self.begin(theatre, chance)
        how = chance.choice((signal.SIGTERM, signal.SIGINT))
        process.popen.send_signal(how)
        try:
            self.status = process.popen.wait(CLEAN_EXIT_S)
        finally:
            killed(process)
        self.how, self.output = how, process.output()

    def begin(self, theatre, chance):
        """A process that starts, and has come to a certain moment."""
        process = theatre.start("-r", "__ns:=/starting")
        time.sleep(chance.uniform(0.5, 8.0))  # before that Python itself starts, with handlers of its own
        return process

    def verify(self, theatre):
        # before rclpy has taken over, the signal itself ends the process
        early = self.status == -self.how and "active: waiting" not in self.output
        assert self.status == 0 or early, f"exit status {self.status}: {self.output[-2000:]}"
        for crash in ("Traceback", "Segmentation fault", "terminate called"):
            assert crash not in self.output, self.output[-2000:]
        return f"{signal.Signals(self.how).name}: exit status {self.status}"

    def clear(self, theatre):
        theatre.runtimes.heal()
        sweep_shared_memory(theatre.segments_before)


class EndsWhileItConfigures(EndsAtStart):
    name = "SIGTERM or SIGINT while the node builds its engine"
    expected = "exit status 0 within seconds, no traceback"

    def begin(self, theatre, chance):
        cache = theatre.folder / f"cache_{chance.randrange(10**9)}"
        process = theatre.start("-r", "__ns:=/starting", environment={"XDG_CACHE_HOME": str(cache)})
        theatre.runtimes.tell("openvino", "build")
        theatre.domain.spin_until(lambda: theatre.runtimes.busy("openvino"), START_TIMEOUT_S, "no engine is built")
        theatre.domain.rest(chance.uniform(0.0, 1.0))
        return process

    def verify(self, theatre):
        happened = super().verify(theatre)
        assert self.status == 0, happened
        return happened


SCENARIOS = (
    Killed,
    KilledAtStart,
    Interrupted,
    Terminated,
    TerminatedInFlood,
    ShutDown,
    ShutDownInactive,
    ShutDownUnconfigured,
    EndsWhileItHangs,
    EndsAtStart,
    EndsWhileItConfigures,
)
