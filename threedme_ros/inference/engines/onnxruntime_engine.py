"""ONNX Runtime: the network exported once for each window shape, kept on disk and in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import nn

from threedme_ros.inference.engines import EngineError, failure
from threedme_ros.inference.engines.build_cache import default_cache_dir
from threedme_ros.inference.engines.per_shape import PerShape
from threedme_ros.inference.export import CONFIDENCE, INPUT, LABELS, cached_onnx

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
MAX_SESSIONS = 4
"""Each keeps its working memory, GBs for a large window; a dropped one is back from the disk in under a second."""


class OnnxRuntimeEngine:
    """``model`` (with `predict`, on the CPU), whose weights ``weights_hash`` names.

    A session serves one shape; the `MAX_SESSIONS` used last stay loaded. threads: 0 is one a core.
    """

    name = "onnxruntime"
    precision = "fp32"

    def __init__(
        self,
        model: nn.Module,
        weights_hash: str,
        *,
        device: str = "cpu",
        precision: str = "auto",
        threads: int = 0,
        cache_dir: Path | None = None,
    ) -> None:
        import onnxruntime

        if precision not in ("auto", self.precision):
            raise EngineError(f"onnxruntime: precision {precision!r}: expected auto or {self.precision!r}")
        kind, _, index = device.partition(":")
        if PROVIDERS.get(kind) not in onnxruntime.get_available_providers():
            raise EngineError(
                f"onnxruntime: device {device!r} needs one of {sorted(PROVIDERS)} and its execution provider, here are"
                f" {onnxruntime.get_available_providers()}; for a GPU: pip install onnxruntime-gpu"
            )
        self.device = device
        self._provider = (PROVIDERS[kind], {"device_id": index} if index else {})
        self._model, self._weights_hash, self._threads = model, weights_hash, threads
        self._cache_dir = cache_dir or default_cache_dir()
        self._sessions: PerShape[onnxruntime.InferenceSession] = PerShape(self.name, MAX_SESSIONS)

    @property
    def building(self) -> bool:
        return self._sessions.building

    def run(self, window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        session = self._sessions.get(window.shape, self._build)
        try:
            labels, confidence = session.run([LABELS, CONFIDENCE], {INPUT: window[None, None]})
        except Exception as error:  # onnxruntime's exceptions share no base class of their own
            raise failure(self.name, window, error) from error
        return labels, confidence

    def close(self) -> None:
        self._sessions.close()
        self._model = None

    def _build(self, shape: tuple[int, ...]):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.enable_mem_pattern = (
            False  # its one big block is 1.7 times what is live: 5.7 GB, not 3.3, at 256x256x128
        )
        options.log_severity_level = 3
        try:
            graph = cached_onnx(self._model, self._weights_hash, shape, self._cache_dir)
            return onnxruntime.InferenceSession(graph, options, providers=[self._provider])
        except Exception as error:  # the exporter and onnxruntime raise types of their own
            raise failure(self.name, shape, f"building: {error}") from error
