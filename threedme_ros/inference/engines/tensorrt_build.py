"""From an ONNX graph to a TensorRT plan: the part that TensorRT 10, TensorRT 11 and TensorRT-RTX have in common.

Every network is strongly typed: types come from the graph (`export_onnx` in the precision wanted), since TensorRT 11
and RTX know nothing else. ``trt`` is the bindings' module throughout, so that the same code can be checked with RTX's.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from threedme_ros.inference.engines import EngineError, failure

log = logging.getLogger(__name__)

PROGRESS_PERIOD_S = 5.0


def make_logger(trt):
    """A TensorRT logger that writes to ours and remembers the last error, which the return values do not tell."""

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last_error = ""

        def log(self, severity, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.last_error = message
                log.warning("tensorrt: %s", message)
            elif severity == trt.ILogger.Severity.WARNING:
                log.debug("tensorrt: %s", message)

    return Logger()


def make_monitor(trt, title: str, *, clock: Callable[[], float] = time.monotonic):
    """A progress monitor that logs one line every `PROGRESS_PERIOD_S` s; TensorRT calls it from threads of its own.

    Phases nest, and how long each takes is not known beforehand: the line names the phases under way and their steps.
    """

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.began = self.spoke = clock()
            self.phases: dict[str, tuple[int, int]] = {}  # name: (steps done, steps), the outermost first

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.phases[phase_name] = (0, num_steps)
            self._speak()

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self.phases:
                self.phases[phase_name] = (step + 1, self.phases[phase_name][1])
            self._speak()
            return True  # False would cancel the build

        def phase_finish(self, phase_name: str) -> None:
            self.phases.pop(phase_name, None)

        def _speak(self) -> None:
            now = clock()
            if now - self.spoke >= PROGRESS_PERIOD_S:
                self.spoke = now
                steps = " > ".join(f"{name} {done}/{of}" for name, (done, of) in list(self.phases.items()))
                log.info("%s: %.0f s, %s", title, now - self.began, steps)

    return Monitor()


def build_plan(
    trt,
    logger,
    graph: bytes,
    shape: tuple[int, int, int],
    *,
    workspace_bytes: int,
    timing_cache: bytes = b"",
    configure: Callable[[object], None] = lambda config: None,
) -> tuple[bytes, bytes]:
    """An ONNX ``graph`` for windows of ``shape`` -> the serialized engine and the timing cache with what was learnt.

    timing_cache: of an earlier build; one that is damaged or of another device is left out. configure: last changes to
    the builder's configuration. Raises EngineError with TensorRT's reason, EngineMemoryError if that is memory.
    """
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph):
        reasons = [str(parser.get_error(i)).partition("\n")[0] for i in range(parser.num_errors)]
        raise EngineError(f"tensorrt: the graph is refused: {'; '.join(reasons) or logger.last_error}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_bytes)
    config.clear_flag(trt.BuilderFlag.TF32)  # what is fp32 in the graph stays so for a reason
    title = f"tensorrt: building for windows of {tuple(shape)}"
    monitor = make_monitor(trt, title)  # it must outlive the build
    config.progress_monitor = monitor
    _use_timing_cache(config, timing_cache)
    configure(config)
    log.info("%s: this takes minutes, once", title)
    logger.last_error = ""
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise failure("tensorrt", shape, f"building: {logger.last_error or 'no reason given'}")
    learnt = config.get_timing_cache()
    return bytes(plan), b"" if learnt is None else bytes(learnt.serialize())


def _use_timing_cache(config, stored: bytes) -> None:
    for data in (stored, b"") if stored else (b"",):
        cache = config.create_timing_cache(data)
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            return
        log.info("tensorrt: the timing cache is not of this device and version: starting a new one")
