"""A TensorRT plan on the GPU: buffers on both sides, a stream of its own, its kernels recorded as one CUDA graph.

Device memory, pinned memory, streams and CUDA graphs are torch's: it is installed anyway, brings the CUDA runtime that
matches, shares its memory pool with the torch engine that would follow, and turns an exhausted GPU into an exception.
"""

from __future__ import annotations

import logging

import numpy as np
import torch

from threedme_ros.inference.engines import tells_of_memory
from threedme_ros.inference.export import CONFIDENCE, INPUT, LABELS

log = logging.getLogger(__name__)


class StalePlanError(Exception):
    """TensorRT does not take a plan, or it is not of our graph."""


class Program:
    """A plan on the GPU, ready to run: buffers on both sides, and its kernels recorded as one CUDA graph.

    Input and output names, shapes and types are read from the plan; StalePlanError if they are not those of our graph.
    """

    def __init__(self, trt, runtime, plan: bytes, shape: tuple[int, ...], device: torch.device, logger) -> None:
        logger.last_error = ""
        self._engine = runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise _out_of_memory_or(StalePlanError, logger, "it cannot be deserialized")
        shapes = self._io_shapes(trt)
        expected = {INPUT: (1, 1, *shape), LABELS: tuple(shape), CONFIDENCE: tuple(shape)}
        if shapes != expected:
            raise StalePlanError(f"its tensors are {shapes}, expected {expected}")
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise _out_of_memory_or(RuntimeError, logger, "no execution context")
        self._logger = logger
        self._stream = torch.cuda.Stream(device)
        dtypes = {name: _torch_dtype(trt, self._engine.get_tensor_dtype(name)) for name in shapes}
        self._on_gpu = {n: torch.empty(s, dtype=dtypes[n], device=device) for n, s in shapes.items()}
        # pinned: only such memory is copied without a detour, and beside the kernels
        self._on_host = {n: torch.empty(s, dtype=dtypes[n], pin_memory=True) for n, s in shapes.items()}
        for name, buffer in self._on_gpu.items():
            if not self._context.set_tensor_address(name, buffer.data_ptr()):
                raise RuntimeError(f"tensor {name} cannot be bound: {logger.last_error}")
        self._graph = self._record()

    def run(self, window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(D, H, W) float32 -> labels uint8, confidence float32 (D, H, W), the caller's own."""
        self._on_host[INPUT][0, 0].numpy()[...] = window
        with torch.cuda.stream(self._stream):
            self._on_gpu[INPUT].copy_(self._on_host[INPUT], non_blocking=True)
            if self._graph is None:
                self._execute()
            else:
                self._graph.replay()
            for name in (LABELS, CONFIDENCE):
                self._on_host[name].copy_(self._on_gpu[name], non_blocking=True)
        self._stream.synchronize()
        return self._on_host[LABELS].numpy().copy(), self._on_host[CONFIDENCE].numpy().copy()

    def _record(self) -> torch.cuda.CUDAGraph | None:
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            self._on_gpu[INPUT].zero_()
            self._execute()  # once outside the graph: TensorRT finishes its own preparations on the first run
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            # thread_local: other threads of the node may use the GPU meanwhile
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                self._execute()
        except RuntimeError as error:
            log.warning("tensorrt: no CUDA graph, every kernel is launched by itself: %s", error)
            return None
        return graph

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._stream.cuda_stream):
            raise RuntimeError(self._logger.last_error or "execution failed, no reason given")

    def _io_shapes(self, trt) -> dict[str, tuple[int, ...]]:
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        inputs = [n for n in names if self._engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        if inputs != [INPUT]:
            raise StalePlanError(f"its inputs are {inputs}, expected {[INPUT]}")
        return {name: tuple(self._engine.get_tensor_shape(name)) for name in names}


def _torch_dtype(trt, dtype) -> torch.dtype:
    known = {trt.DataType.FLOAT: torch.float32, trt.DataType.UINT8: torch.uint8}
    if dtype not in known:
        raise StalePlanError(f"a tensor of type {dtype}, expected {list(known)}")
    return known[dtype]


def _out_of_memory_or(kind: type[Exception], logger, message: str) -> Exception:
    text = f"{message}: {logger.last_error or 'no reason given'}"
    return RuntimeError(text) if tells_of_memory(text) else kind(text)
