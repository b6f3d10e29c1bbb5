"""Lifecycle transitions that do not fit, fail, or come while a volume is being worked on; parameters amid inference."""

import shutil
import time

from diagnostic_msgs.msg import DiagnosticStatus
from engine_faults import hang
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from scenario import Scenario
from theatre import LARGE, NAME, SMALL

CONFIGURE, CLEANUP = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_CLEANUP
ACTIVATE, DEACTIVATE = Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_DEACTIVATE
SHUTDOWNS = {"unconfigured": 5, "inactive": 6, "active": 7}
VALID = {
    "unconfigured": {CONFIGURE, SHUTDOWNS["unconfigured"]},
    "inactive": {CLEANUP, ACTIVATE, SHUTDOWNS["inactive"]},
    "active": {DEACTIVATE, SHUTDOWNS["active"]},
    "finalized": set(),
}
MANAGERS_WAIT_S = 30.0
"""For a transition, `ros2 launch` and lifecycle managers do."""
NUMBERS = (*range(9), 10, 20, 30, 40, 50, 60, 61, 62, 99, 255)
"""Every transition of the interface, those that only the node itself may make, and some that do not exist."""


def refuses_what_does_not_fit(theatre, state: str, numbers) -> int:
    """Every other transition fails and changes nothing; returns how many."""
    wrong = [number for number in numbers if number not in VALID[state]]
    for number in wrong:
        assert not theatre.domain.change_state(NAME, number), f"{number} succeeded in {state}"
        assert theatre.domain.state(NAME) == state, f"{number} left {state}"
    return len(wrong)


class EveryTransition(Scenario):
    name = "every transition in every state"
    expected = "those that fit succeed, all others are refused and change nothing"
    slow = True

    def inject(self, theatre, chance):
        numbers = list(NUMBERS)
        chance.shuffle(numbers)
        self.good, self.refused = theatre.node.segment(SMALL), 0
        path = (("active", DEACTIVATE), ("inactive", CLEANUP), ("unconfigured", CONFIGURE), ("inactive", ACTIVATE))
        for state, onward in path:
            self.refused += refuses_what_does_not_fit(theatre, state, numbers)
            if state == "inactive" and onward == CLEANUP:
                theatre.serves(self.good)  # inactive, but still latched
            theatre.transition(onward)

    def verify(self, theatre):
        theatre.connected()
        return f"{self.refused} that did not fit were refused, 4 that fit succeeded"


class ConfigureFails(Scenario):
    name = "configure fails (bad checkpoint), then succeeds"
    expected = "it stays unconfigured and says why; with the checkpoint in place it configures and serves"

    def inject(self, theatre, chance):
        self.kept = theatre.checkpoint.with_suffix(".kept")
        shutil.copy(theatre.checkpoint, self.kept)
        self.how = chance.choice(("missing", "cut off", "garbage", "empty"))
        data = theatre.checkpoint.read_bytes()
        if self.how == "missing":
            theatre.checkpoint.unlink()
        else:
            rest = {"cut off": data[: chance.randrange(1, len(data))], "garbage": chance.randbytes(5000), "empty": b""}
            theatre.checkpoint.write_bytes(rest[self.how])
        theatre.transition(DEACTIVATE)
        theatre.transition(CLEANUP)
        assert not theatre.domain.change_state(NAME, CONFIGURE)

    def verify(self, theatre):
        assert theatre.domain.state(NAME) == "unconfigured"
        said = theatre.node.refresh()
        assert said["level"] == DiagnosticStatus.ERROR and "not inactive: " in said["message"], said
        self.clear(theatre)
        theatre.transition(CONFIGURE)
        theatre.transition(ACTIVATE)
        theatre.connected()
        return f"checkpoint {self.how}: ERROR, unconfigured; then configured and active"

    def clear(self, theatre):
        if self.kept.exists():
            self.kept.replace(theatre.checkpoint)


class AtWork(Scenario):
    """A transition is asked for while a volume is in the engine, which comes back a moment later."""

    def leave(self, theatre, chance, transition: int) -> None:
        hang(theatre, "openvino")
        client = theatre.domain.node.create_client(ChangeState, f"{NAME}/change_state")
        theatre.domain.spin_until(client.service_is_ready, what="no service")
        future = client.call_async(ChangeState.Request(transition=Transition(id=transition)))
        theatre.domain.rest(chance.uniform(0.0, 1.5))
        theatre.runtimes.heal()
        theatre.domain.spin_until(future.done, what="no answer")
        theatre.domain.node.destroy_client(client)
        assert future.result().success, theatre.node.refresh()

    def clear(self, theatre):
        theatre.runtimes.heal()


class DeactivatedAtWork(AtWork):
    name = "deactivate during inference"
    expected = "it succeeds when the volume is done; volumes are counted; the anatomy stays latched; active again"

    def inject(self, theatre, chance):
        theatre.node.segment(SMALL)
        self.leave(theatre, chance, DEACTIVATE)

    def verify(self, theatre):
        theatre.said("state", "inactive")
        theatre.domain.rest(0.3)
        theatre.settled()
        theatre.serves(theatre.last_good)
        theatre.transition(ACTIVATE)
        theatre.connected()
        return "inactive with the anatomy latched, then active again"


class CleanedUpAtWork(AtWork):
    name = "deactivate and clean up during inference"
    expected = "both succeed, volumes are counted, and it configures again"

    def inject(self, theatre, chance):
        self.leave(theatre, chance, DEACTIVATE)
        theatre.transition(CLEANUP)

    def verify(self, theatre):
        assert theatre.domain.state(NAME) == "unconfigured"
        theatre.transition(CONFIGURE)
        theatre.transition(ACTIVATE)
        theatre.connected()
        return "unconfigured, then configured and active again"


class DeactivatedWhileItHangs(Scenario):
    name = "deactivate while the engine hangs"
    expected = "it succeeds within 30 s, the volume counted as failed, the anatomy latched, a thread left; active again"
    slow = True

    def inject(self, theatre, chance):
        self.good, self.failed = theatre.node.segment(SMALL), theatre.node.count("failed")
        hang(theatre, "openvino")
        theatre.domain.rest(chance.uniform(0.0, 2.0))
        began = time.monotonic()
        theatre.transition(DEACTIVATE)
        self.took_s = time.monotonic() - began

    def verify(self, theatre):
        assert self.took_s < MANAGERS_WAIT_S, f"deactivate took {self.took_s:.1f} s"
        theatre.said("state", "inactive")
        theatre.said("threads_left_behind", "1")
        theatre.counted("failed", self.failed + 1)
        theatre.settled()
        theatre.serves(self.good)
        theatre.runtimes.heal()
        theatre.said("threads_left_behind", "0")
        theatre.transition(ACTIVATE)
        theatre.connected()
        return f"inactive after {self.took_s:.0f} s, the volume failed; then active again"

    def clear(self, theatre):
        theatre.runtimes.heal()


class ParametersAtWork(Scenario):
    name = "parameters changed amid inference"
    expected = "valid ones act, others are refused with the reason, no volume is lost"

    def inject(self, theatre, chance):
        self.segmented, self.refused = theatre.node.count("segmented"), 0
        theatre.send(LARGE)
        for _ in range(8):
            name, value, good = chance.choice(
                (
                    ("margin_mm.aorta", chance.uniform(0.0, 30.0), True),
                    ("min_confidence", chance.random(), True),
                    ("min_confidence", 1.0 + chance.random(), False),
                    ("margin_mm.aorta", -1.0, False),
                    ("engine", "torch", False),
                    ("hang_after_s", 0.0, False),
                    ("no_such_parameter", 1, False),
                )
            )
            result = theatre.domain.set_parameter(NAME, name, value)
            assert result.successful is good, (name, value, result.reason)
            assert good or result.reason
            self.refused += not good
        assert theatre.domain.set_parameter(NAME, "min_confidence", 0.0).successful

    def verify(self, theatre):
        theatre.counted("segmented", self.segmented + 1)
        theatre.settled()
        return f"{8 - self.refused} changed, {self.refused} refused with a reason, the volume segmented"


SCENARIOS = (
    EveryTransition,
    ConfigureFails,
    DeactivatedAtWork,
    CleanedUpAtWork,
    DeactivatedWhileItHangs,
    ParametersAtWork,
)
