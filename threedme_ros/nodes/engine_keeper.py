"""The network of a node: one segmenter at a time, made anew after its engine hung, with that engine tried last."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from threedme_ros.inference.incremental import IncrementalSegmenter, UpdatePolicy
from threedme_ros.inference.segmenter import Segmenter
from threedme_ros.model.checkpoint import Checkpoint
from threedme_ros.nodes.parameters import PerceptionParameters
from threedme_ros.nodes.watchdog import HangError, LeftBehind, within

Result = TypeVar("Result")
AnySegmenter = Segmenter | IncrementalSegmenter


class AbandonedError(RuntimeError):
    """A segmenter came too late: it was given up while it was being made."""


@dataclass
class _Generation:
    """One segmenter, or the attempt to make it. opened: (engine, device) of every engine made for it, in order."""

    opened: list[tuple[str, str]] = field(default_factory=list)
    segmenter: AnySegmenter | None = None


class EngineKeeper:
    """Safe from any thread, but one thread at a time uses the segmenter itself.

    left_behind: gets the threads that hang. alive: false once the process is ending.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        parameters: PerceptionParameters,
        left_behind: LeftBehind,
        alive: Callable[[], bool] = lambda: True,
    ) -> None:
        self._checkpoint, self._parameters = checkpoint, parameters
        self._left_behind, self._alive = left_behind, alive
        self._lock = threading.Lock()
        self._generation = _Generation()
        self._hung: Counter[tuple[str, str]] = Counter()

    @property
    def hangs(self) -> int:
        """Engines given up since the last `forgive`."""
        return self._hung.total()

    @property
    def building(self) -> bool:
        """An engine is being made, checked or built for a shape: that may take minutes."""
        segmenter = self._generation.segmenter
        return segmenter is None or segmenter.building

    def segmenter(self) -> AnySegmenter:
        """The one at hand, made here and now if there is none.

        Raises EngineError if no engine is left, AbandonedError if `abandon` was called meanwhile.
        """
        with self._lock:
            generation = self._generation
            if generation.segmenter is not None:
                return generation.segmenter
            hung = dict(self._hung)
        made = self._make(generation, hung)
        with self._lock:
            if generation is self._generation:
                generation.segmenter = made
                return made
        made.close()
        raise AbandonedError("the engine was given up while it was being made")

    def open(self) -> None:
        """Make a segmenter, within the limits. An engine that hangs makes way for the next; HangError past `max_hangs`.

        InterruptedError if the process ends meanwhile.
        """
        self._bring_up(self.segmenter, "opening the engine")

    def warm_up(self) -> float:
        """Warm it up, as `open` makes it; returns the seconds that it took."""
        return self._bring_up(lambda: self.segmenter().warm_up(), "warming up the engine")

    def abandon(self) -> str:
        """Give up the segmenter, whose engine hangs, and remember that; returns the engine's name and device.

        Never waits: the segmenter is not closed, which might hang, too. The thread in it keeps what it uses.
        """
        with self._lock:
            generation, self._generation = self._generation, _Generation()
            engine = generation.opened[-1] if generation.opened else ("no engine", "any device")
            self._hung[engine] += 1
        if generation.segmenter is not None:
            generation.segmenter.retire()
        return f"{engine[0]} on {engine[1]}"

    def forgive(self) -> None:
        """What hung before counts no more."""
        with self._lock:
            self._hung.clear()

    def describe(self) -> dict[str, str]:
        """What runs now, as `Segmenter.describe`; empty while there is none."""
        segmenter = self._generation.segmenter
        return segmenter.describe() if segmenter else {}

    def close(self) -> None:
        with self._lock:
            generation, self._generation = self._generation, _Generation()
        if generation.segmenter is not None:
            generation.segmenter.close()

    def _bring_up(self, work: Callable[[], Result], what: str) -> Result:
        while True:
            try:
                return within(self._parameters.limits.build_s, work, what, self._left_behind, self._alive)
            except HangError as error:
                engine = self.abandon()
                if self.hangs > self._parameters.max_hangs:
                    raise HangError(f"{what}: {engine} hangs, as {self.hangs} in all did: {error}") from error

    def _make(self, generation: _Generation, hung: dict[tuple[str, str], int]) -> AnySegmenter:
        parameters = self._parameters
        segmenter = Segmenter(
            self._checkpoint,
            engine=parameters.engine,
            device=parameters.device,
            precision=parameters.precision,
            min_agreement=parameters.min_agreement,
            threads=parameters.threads,
            modality=parameters.modality,
            hung=hung,
            opened=lambda name, device: generation.opened.append((name, device)),
        )
        if not parameters.incremental:
            return segmenter
        return IncrementalSegmenter(segmenter, UpdatePolicy(full_every=parameters.full_every))
