"""A lifecycle node whose transitions tell why they fail: rclpy itself swallows what their callbacks raise."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import partial

from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn

from threedme_ros.nodes.event_log import EventLog
from threedme_ros.nodes.steps import run_all


class ManagedNode(LifecycleNode):
    """``state`` is where the last transition led: unconfigured, inactive, active or finalized.

    Has a parameter ``autostart``. A transition that cannot be completed is told to `went_wrong` and leaves nothing
    half done: configure and activate fall back to where they began, deactivate and cleanup to unconfigured, or to
    finalized if even that fails.
    """

    def __init__(self, name: str, **kwargs) -> None:
        super().__init__(name, **kwargs)
        self.state = "unconfigured"
        self.log = EventLog(self.get_logger())

    def configure(self) -> None:
        """Make everything; undo it before raising."""
        raise NotImplementedError

    def activate(self) -> None:
        """Start; called before the lifecycle publishers open. Undone by `halt` if it raises."""
        raise NotImplementedError

    def activated(self) -> None:
        """The lifecycle publishers are open."""
        raise NotImplementedError

    def halt(self) -> None:
        """Stop what `activate` and `activated` started, in any state, all of it even if it raises; never hangs."""
        raise NotImplementedError

    def release(self) -> None:
        """Free everything, in any state, halted or not, even if it raises."""
        raise NotImplementedError

    def went_wrong(self, line: str) -> None:
        """Show ``line``, why a transition failed."""
        raise NotImplementedError

    def start(self) -> None:
        """Without a lifecycle manager (parameter autostart): configure and activate."""
        autostart = self.get_parameter("autostart").value
        if autostart and self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def close(self) -> None:
        """Release everything, in any state, before the process ends."""
        self._attempt("finalized", self.release, TransitionCallbackReturn.ERROR)

    def destroy_node(self) -> None:
        """Also what rclpy forgets: its state machine keeps the participant, and with it its shared memory."""
        super().destroy_node()
        self._state_machine.destroy_when_not_in_use()

    def on_configure(self, state):
        return self._attempt("inactive", self.configure, TransitionCallbackReturn.FAILURE)

    def on_activate(self, state):
        def step() -> None:
            try:
                self.activate()
                super(ManagedNode, self).on_activate(state)
                self.activated()
            except Exception:
                run_all(self.halt, partial(super(ManagedNode, self).on_deactivate, state))
                raise

        return self._attempt("active", step, TransitionCallbackReturn.FAILURE)

    def on_deactivate(self, state):
        def step() -> None:
            self.halt()
            super(ManagedNode, self).on_deactivate(state)

        return self._attempt("inactive", step, TransitionCallbackReturn.ERROR)

    def on_cleanup(self, state):
        return self._attempt("unconfigured", self.release, TransitionCallbackReturn.ERROR)

    def on_shutdown(self, state):
        return self._attempt("finalized", self.release, TransitionCallbackReturn.ERROR)

    def on_error(self, state):
        outcome = self._attempt("unconfigured", self.release, TransitionCallbackReturn.FAILURE)
        if outcome != TransitionCallbackReturn.SUCCESS:
            self.state = "finalized"  # so it is for the lifecycle now
        return outcome

    def _attempt(self, goal: str, step: Callable[[], None], otherwise: TransitionCallbackReturn):
        try:
            step()
        except InterruptedError as error:  # no failure: the process ends, as it was told to
            self.log.info("transition_interrupted", f"not {goal}: {error}", goal=goal)
            return otherwise
        except Exception as error:
            self.went_wrong(f"not {goal}: {error}")
            self.log.error("transition_failed", f"not {goal}: {error}", trace=traceback.format_exc(), goal=goal)
            return otherwise
        self.state = goal
        return TransitionCallbackReturn.SUCCESS
