"""TensorRT on an NVIDIA GPU: one plan for each window shape, built once, run as a CUDA graph on a stream of its own.

Written against the documented API of TensorRT 10 and 11, whose bindings have every name used here. Building and parsing
are tested with TensorRT-RTX; neither this file nor tensorrt_program.py has run on a GPU yet.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from threedme_ros.inference.engines import EngineError, failure
from threedme_ros.inference.engines.build_cache import cached_build, default_cache_dir, read_cached, write_cached
from threedme_ros.inference.engines.per_shape import PerShape
from threedme_ros.inference.engines.tensorrt_build import build_plan, make_logger
from threedme_ros.inference.engines.tensorrt_program import Program, StalePlanError
from threedme_ros.inference.export import cached_onnx

log = logging.getLogger(__name__)

PRECISIONS = ("fp16", "bf16", "fp32")
WORKSPACE_BYTES = 4 << 30
MAX_PROGRAMS = 4
"""Each keeps its activations on the GPU, hundreds of MB for a large window."""


@dataclass(frozen=True)
class Gpu:
    """What a plan is built for; on another it is slow at best, so it counts as foreign."""

    name: str
    compute_capability: tuple[int, int]
    driver: str

    @classmethod
    def of(cls, device: torch.device) -> Gpu:
        properties = torch.cuda.get_device_properties(device)
        return cls(properties.name, (properties.major, properties.minor), driver_version())


class TensorRtEngine:
    """``model`` (with `predict`, on the CPU), whose weights ``weights_hash`` names.

    precision: "auto" is fp16. threads: of no effect, the GPU does the work. A plan is kept under a key of everything it
    depends on; the `MAX_PROGRAMS` shapes used last stay loaded.
    """

    name = "tensorrt"

    def __init__(
        self,
        model: nn.Module,
        weights_hash: str,
        *,
        device: str = "cuda",
        precision: str = "auto",
        threads: int = 0,
        cache_dir: Path | None = None,
    ) -> None:
        import tensorrt

        precision = "fp16" if precision == "auto" else precision
        if precision not in PRECISIONS:
            raise EngineError(f"tensorrt: precision {precision!r}: expected auto or one of {PRECISIONS}")
        kind, _, index = device.partition(":")
        if kind != "cuda" or not torch.cuda.is_available():
            raise EngineError(f"tensorrt: device {device!r}: needs an NVIDIA GPU, its driver and a CUDA build of torch")
        self._device = torch.device("cuda", int(index or torch.cuda.current_device()))
        self.device, self.precision = str(self._device), precision
        self._gpu = Gpu.of(self._device)
        if precision == "bf16" and self._gpu.compute_capability < (8, 0):
            raise EngineError(f"tensorrt: precision 'bf16': {self._gpu.name} has none, expected Ampere or newer")
        self._trt, self._model, self._weights_hash = tensorrt, model, weights_hash
        self._cache_dir = cache_dir or default_cache_dir()
        self._logger = make_logger(tensorrt)
        self._runtime = tensorrt.Runtime(self._logger)
        self._programs: PerShape[Program] = PerShape(self.name, MAX_PROGRAMS)

    @property
    def building(self) -> bool:
        return self._programs.building

    def run(self, window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        try:
            with torch.cuda.device(self._device):
                return self._programs.get(window.shape, self._load).run(window)
        except (RuntimeError, MemoryError) as error:  # torch's out-of-memory error is a RuntimeError
            if isinstance(error, EngineError):
                raise
            failed, cause = failure(self.name, window, error), error
        # out here the exception no longer holds what filled the GPU
        torch.cuda.empty_cache()
        raise failed from cause.with_traceback(None)

    def close(self) -> None:
        self._programs.close()
        self._model = self._runtime = None

    def _load(self, shape: tuple[int, ...]) -> Program:
        try:
            graph = cached_onnx(self._model, self._weights_hash, shape, self._cache_dir, self.precision)
        except Exception as error:  # the exporter raises types of its own
            raise failure(self.name, shape, f"exporting: {error}") from error
        key = plan_key(graph, self._trt.__version__, self._gpu, self.precision, shape)
        for fresh in (False, True):
            plan = self._plan(graph, shape, key, fresh=fresh)
            try:
                return Program(self._trt, self._runtime, plan, shape, self._device, self._logger)
            except StalePlanError as error:
                problem = f"window {shape}: the engine is not usable: {error}"
                log.warning("tensorrt: %s%s", problem, "" if fresh else "; building it again")
        raise EngineError(f"tensorrt: {problem}")

    def _plan(self, graph: bytes, shape: tuple[int, ...], key: tuple, *, fresh: bool = False) -> bytes:
        def build() -> bytes:
            timing_key = (self._trt.__version__, *astuple(self._gpu))
            known = read_cached(self._cache_dir, "timing", timing_key) or b""
            plan, learnt = build_plan(
                self._trt, self._logger, graph, shape, workspace_bytes=WORKSPACE_BYTES, timing_cache=known
            )
            write_cached(self._cache_dir, "timing", timing_key, learnt)
            return plan

        return cached_build(self._cache_dir, "tensorrt", key, build, fresh=fresh)


def plan_key(graph: bytes, version: str, gpu: Gpu, precision: str, shape: tuple[int, ...]) -> tuple:
    """Everything a plan depends on: the graph's hash, TensorRT, GPU, driver, precision, shape and build options."""
    return (hashlib.sha256(graph).hexdigest(), version, *astuple(gpu), precision, tuple(shape), WORKSPACE_BYTES)


def driver_version() -> str:
    """The kernel driver's version line where Linux shows it, and the CUDA version that the driver serves."""
    served = ctypes.c_int(0)
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(served))
    try:
        kernel = Path("/proc/driver/nvidia/version").read_text().partition("\n")[0]
    except OSError:  # Jetson and WSL have no such file
        kernel = ""
    return f"{kernel} CUDA {served.value}"
