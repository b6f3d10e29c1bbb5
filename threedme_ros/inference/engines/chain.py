"""Which engine runs: the first that can be made and passes its gate, and the next one when it fails at work."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from threedme_ros.inference.engines import ENGINES, Engine, EngineError, EngineMemoryError

log = logging.getLogger(__name__)

Result = TypeVar("Result")


@dataclass(frozen=True)
class Candidate:
    """make: gives the engine, or raises EngineError if it cannot run here; then, if required, that is raised on."""

    make: Callable[[], Engine]
    required: bool = False


def preference(name: str, device: str) -> list[tuple[str, str]]:
    """(engine, device) in the order they are tried: those on the GPU if ``device`` is one, then those on the CPU.

    A ``name`` other than "auto" comes first. ValueError for an unknown one.
    """
    if name not in ("auto", *ENGINES):
        raise ValueError(f"engine {name!r}: expected auto or one of {ENGINES}")
    on_gpu = [] if device == "cpu" else [(engine, device) for engine in ("tensorrt", "torch", "onnxruntime")]
    order = [*on_gpu, *((engine, "cpu") for engine in ENGINES if engine != "tensorrt")]
    return order if name == "auto" else [(name, device), *(pair for pair in order if pair != (name, device))]


class EngineChain:
    """One engine at a time, with those that may replace it. Used from one thread.

    gate: an engine and the largest window in voxels -> its agreement with the reference, 0..1; raises EngineError to
    refuse it. window_voxels: the largest window; halved when memory runs out, down to ``least_voxels``, before another
    engine is tried. refused: why engines that could be made do not run. Raises EngineError if none is left.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        *,
        gate: Callable[[Engine, int], float | None],
        window_voxels: int,
        least_voxels: int,
    ) -> None:
        self._waiting = list(candidates)
        self._gate, self._least = gate, least_voxels
        self._full = self.window_voxels = window_voxels
        self.refused: list[str] = []
        self._absent: list[str] = []
        self.engine: Engine | None = None
        self.agreement: float | None = None
        self._opening = False
        self._lost = False  # the engine was closed for another to take its place, and none did
        if not self._advance():
            raise EngineError(f"no engine is usable: {'; '.join(self._absent + self.refused)}")

    def attempt(self, work: Callable[[Engine, int], Result]) -> Result:
        """``work(engine, window_voxels)``, again with a smaller window or the next engine while it raises EngineError.

        The last engine's error is raised; that engine stays, for the next call, which makes it again if it could not be
        made just now, as in a shortage, and raises EngineError if it still cannot.
        """
        while True:
            if self._lost:
                self._make_again()
            try:
                return work(self.engine, self.window_voxels)
            except EngineMemoryError as error:
                if not self._shrink(error) and not self._replace(error):
                    raise
            except EngineError as error:
                if not self._replace(error):
                    raise

    @property
    def building(self) -> bool:
        """An engine is being made, checked, or built for a shape; from any thread."""
        return self._opening or self.engine.building

    def retire(self) -> None:
        """No other engine is tried any more; from any thread, and never waits, as `close` may for one that hangs."""
        self._waiting.clear()

    def close(self) -> None:
        """Free the engine, and forget the others."""
        self._waiting.clear()
        self._lost = False
        self.engine.close()

    def _shrink(self, error: EngineMemoryError) -> bool:
        smaller = min(error.voxels, self.window_voxels) // 2
        if smaller < self._least:
            return False
        self.window_voxels = smaller
        log.warning("%s; going on with windows of at most %d voxels", error, smaller)
        return True

    def _replace(self, error: EngineError) -> bool:
        if not self._waiting:
            return False
        before = self.window_voxels, self.agreement
        self.engine.close()  # its memory may be what the next one needs
        self.refused.append(str(error))
        if self._advance():
            log.warning("%s; going on with %s on %s", error, self.engine.name, self.engine.device)
            return True
        self.window_voxels, self.agreement = before
        self._lost = True
        try:
            self._make_again()  # better than none: the next volume may suit it
        except EngineError as absent:
            log.warning("%s; the next volume tries again", absent)
        return False

    def _make_again(self) -> None:
        self._opening = True
        try:
            self.engine = self._candidate.make()
        finally:
            self._opening = False
        self._lost = False

    def _advance(self) -> bool:
        """The next engine that can be made and passes; False if there is none."""
        self._opening = True
        try:
            return self._open_next()
        finally:
            self._opening = False

    def _open_next(self) -> bool:
        while self._waiting:
            candidate = self._waiting.pop(0)
            try:
                engine = candidate.make()
            except EngineError as error:
                if candidate.required:
                    raise
                self._absent.append(str(error))
                log.info("not used: %s", error)
                continue
            if self._passes(engine):
                self.engine, self._candidate = engine, candidate
                return True
            engine.close()
        return False

    def _passes(self, engine: Engine) -> bool:
        self.window_voxels = self._full
        while True:
            try:
                self.agreement = self._gate(engine, self.window_voxels)
                return True
            except EngineMemoryError as error:
                refusal = error
                if self._shrink(error):
                    continue
            except (EngineError, OSError, MemoryError) as error:
                refusal = error
            self.refused.append(str(refusal))
            log.warning("engine refused: %s", refusal)
            return False
