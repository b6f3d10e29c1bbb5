"""Engines that hang, raise or give no numbers."""

from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from scenario import Scenario
from theatre import (
    BESIDE,
    DIAGNOSTICS_PERIOD_S,
    NAME,
    QUESTIONS,
    SMALL,
    WAIT_S,
    Afterwards,
    killed,
)

SECONDS = 3.0
"""Shorter than `HANG_AFTER_S`."""


def hang(theatre, name: str) -> None:
    """A volume is in the engine called ``name``, which does not come back."""
    theatre.runtimes.tell(name, "hang")
    theatre.send()
    theatre.domain.spin_until(lambda: theatre.runtimes.busy(name), WAIT_S, lambda: f"{name} does not run")


class Hangs(Scenario):
    name = "engine hangs at work"
    expected = "its volume is counted as failed, its thread left behind, and another engine goes on"
    afterwards = Afterwards.OTHER_ENGINE

    def inject(self, theatre, chance):
        self.good, self.failed = theatre.node.segment(SMALL), theatre.node.count("failed")
        hang(theatre, "openvino")

    def verify(self, theatre):
        theatre.counted("failed", self.failed + 1)
        said = theatre.node.diagnostics
        assert (said["level"], said["anatomy"]) == (DiagnosticStatus.ERROR, "stale"), said
        assert "openvino on cpu hangs: no result for" in said["message"], said
        theatre.serves(self.good)
        theatre.node.segment(SMALL)
        said = theatre.node.refresh()
        assert (said["engine"], said["hangs"], said["threads_left_behind"]) == ("onnxruntime", "1", "1"), said
        self.after(theatre)
        return "ERROR: openvino hangs; the volume failed; onnxruntime segmented on"

    def after(self, theatre):
        pass

    def clear(self, theatre):
        theatre.runtimes.heal()


class Busy(Scenario):
    name = "engine at work for seconds"
    expected = "meanwhile the node answers, takes volumes and tells of itself every second; then it segments the newest"
    afterwards = Afterwards.OTHER_ENGINE  # on a busy machine it takes longer than until a hang is given up

    def inject(self, theatre, chance):
        hang(theatre, "openvino")
        theatre.answers()
        told = theatre.node.told
        theatre.domain.rest(SECONDS)
        self.told = theatre.node.told - told
        self.last = theatre.send()
        theatre.runtimes.heal()

    def verify(self, theatre):
        least = int(SECONDS / DIAGNOSTICS_PERIOD_S) - 1
        assert self.told >= least, f"{self.told} diagnostics in {SECONDS} s: expected at least {least}"
        theatre.domain.spin_until(lambda: theatre.last_good == self.last, WAIT_S, "the last one was not segmented")
        theatre.settled()
        return f"{QUESTIONS} answers and the diagnostics came meanwhile"

    def clear(self, theatre):
        theatre.runtimes.heal()


class ComesBack(Hangs):
    name = "engine hangs, and comes back after it was given up"
    expected = "its result is dropped, its thread ends, nothing is counted twice"

    def after(self, theatre):
        shown = len(theatre.node.received["labels"])
        theatre.runtimes.heal()
        theatre.said("threads_left_behind", "0")
        theatre.settled()
        assert len(theatre.node.received["labels"]) == shown, "a late result was published"


class Fails(Scenario):
    """``told``: how each engine fails. The volume is segmented by the first that does not."""

    told: dict[str, str]
    taken: str
    reasons: tuple[str, ...]
    afterwards = Afterwards.OTHER_ENGINE

    def inject(self, theatre, chance):
        self.failed = theatre.node.count("failed")
        for name, how in self.told.items():
            theatre.runtimes.tell(name, how)
        self.stamp = theatre.node.segment(SMALL)

    def verify(self, theatre):
        said = theatre.node.refresh()
        assert (said["engine"], theatre.node.count("failed")) == (self.taken, self.failed), said
        for reason in self.reasons:
            assert reason in said["refused"], said["refused"]
        theatre.serves(self.stamp)
        return f"{self.taken} segmented the same volume; refused: {said['refused']}"

    def clear(self, theatre):
        theatre.runtimes.heal()


class Raises(Fails):
    name = "engine raises"
    expected = "the next engine segments the same volume; diagnostics name the one refused"
    told, taken = {"openvino": "raise"}, "onnxruntime"
    reasons = ("an exception of its own",)


class NoNumbers(Fails):
    name = "engine returns NaN"
    expected = Raises.expected
    told, taken = {"openvino": "nan"}, "onnxruntime"
    reasons = ("output is not finite",)


class BothFail(Fails):
    name = "one engine raises and the next returns NaN"
    expected = "the last engine segments the same volume; diagnostics name both"
    told, taken = {"openvino": "raise", "onnxruntime": "nan"}, "torch"
    reasons = (*Raises.reasons, *NoNumbers.reasons)


class AllHang(Scenario):
    name = "engines hang one after the other"
    expected = "past max_hangs the node deactivates itself and says why; activating it again works"
    slow = True

    def inject(self, theatre, chance):
        self.good = theatre.node.segment(SMALL)
        hang(theatre, "openvino")
        theatre.said("engine", "onnxruntime")  # made and checked: only now can it hang at work
        hang(theatre, "onnxruntime")

    def verify(self, theatre):
        theatre.said("state", "inactive")
        text = theatre.tells("deactivated: gave up after 2 hangs")
        assert theatre.node.diagnostics["level"] == DiagnosticStatus.ERROR
        assert theatre.node.diagnostics["anatomy"] == "stale"
        theatre.serves(self.good)
        theatre.settled()
        theatre.runtimes.heal()
        theatre.transition(Transition.TRANSITION_ACTIVATE)
        theatre.connected()
        theatre.node.segment(SMALL)
        return f"ERROR: {text[:90]}; activated again"

    def clear(self, theatre):
        theatre.runtimes.heal()


class Beside(Scenario):
    """A node of its own, since the limit for building has to be a short one: ``theatre.build_s`` with room."""

    slow = True
    process = None

    def begin(self, theatre):
        limit_s = theatre.short_build_timeout_s
        self.process = theatre.start("-r", f"__ns:={BESIDE}", autostart=False, build_timeout_s=limit_s)
        self.node = theatre.adopt_beside(self.process)

    def change(self, theatre, transition):
        return theatre.domain.change_state(f"{BESIDE}{NAME}", transition)

    def segments(self, theatre):
        self.node.wait_for_subscription()
        theatre.domain.rest(0.5)
        self.node.segment(SMALL)
        return self.node.refresh()

    def clear(self, theatre):
        theatre.runtimes.heal()
        if self.process:
            killed(self.process)


class HangsInGate(Beside):
    name = "engine hangs in the parity gate"
    expected = "configure goes on with the next engine"

    def inject(self, theatre, chance):
        self.begin(theatre)
        theatre.runtimes.tell("openvino", "hang")
        assert self.change(theatre, Transition.TRANSITION_CONFIGURE), self.node.refresh()

    def verify(self, theatre):
        assert self.change(theatre, Transition.TRANSITION_ACTIVATE), self.node.refresh()
        said = self.segments(theatre)
        assert (said["engine"], said["threads_left_behind"]) == ("onnxruntime", "1"), said
        return "configured with onnxruntime"


class HangsInWarmUp(Beside):
    name = "engine hangs while it is warmed up"
    expected = "activate goes on with the next engine"

    def inject(self, theatre, chance):
        self.begin(theatre)
        assert self.change(theatre, Transition.TRANSITION_CONFIGURE), self.node.refresh()
        theatre.runtimes.tell("openvino", "hang")
        assert self.change(theatre, Transition.TRANSITION_ACTIVATE), self.node.refresh()

    def verify(self, theatre):
        said = self.segments(theatre)
        assert (said["engine"], said["hangs"], said["threads_left_behind"]) == ("onnxruntime", "1", "1"), said
        return "activated with onnxruntime"


SCENARIOS = (Busy, Hangs, ComesBack, Raises, NoNumbers, BothFail, AllHang, HangsInGate, HangsInWarmUp)
