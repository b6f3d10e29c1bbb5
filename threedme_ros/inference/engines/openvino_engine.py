"""OpenVINO: the fastest engine on a CPU. One compiled network for each window shape, of static shape."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from torch import nn

from threedme_ros.inference.engines import EngineError, failure
from threedme_ros.inference.engines.build_cache import default_cache_dir
from threedme_ros.inference.engines.per_shape import PerShape
from threedme_ros.inference.export import CONFIDENCE, INPUT, LABELS, cached_onnx
from threedme_ros.private_files import private_folder

log = logging.getLogger(__name__)
HINTS = {"fp32": "f32", "bf16": "bf16"}
MAX_MODELS = 4
"""Each keeps its working memory, hundreds of MB for a large window."""


class OpenVinoEngine:
    """``model`` (with `predict`, on the CPU), whose weights ``weights_hash`` names.

    precision: "auto" is bf16 where the processor computes in it (AMX or AVX512-BF16), else fp32. threads: 0 is one a
    core. Compiled networks are kept in OpenVINO's own cache, which names them by the graph, the processor, its version
    and these options; one that it cannot read it compiles again.
    """

    name = "openvino"

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
        import openvino

        if device != "cpu":
            raise EngineError(f"openvino: device {device!r}: expected 'cpu'")
        self._core = openvino.Core()
        if precision == "auto":
            able = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
            precision = "bf16" if "BF16" in able else "fp32"
        if precision not in HINTS:
            raise EngineError(f"openvino: precision {precision!r}: expected auto or one of {tuple(HINTS)}")
        self.device, self.precision = device, precision
        self._model, self._weights_hash = model, weights_hash
        self._cache_dir = cache_dir or default_cache_dir()
        self._options = {"INFERENCE_PRECISION_HINT": HINTS[precision], "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
        if threads:
            self._options["INFERENCE_NUM_THREADS"] = threads
        self._requests: PerShape[openvino.InferRequest] = PerShape(self.name, MAX_MODELS)

    @property
    def building(self) -> bool:
        return self._requests.building

    def run(self, window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        request = self._requests.get(window.shape, self._build)
        try:
            request.infer({INPUT: window[None, None]}, share_inputs=True)
            # copies: the request computes into the same tensors again
            return request.get_tensor(LABELS).data.copy(), request.get_tensor(CONFIDENCE).data.copy()
        except Exception as error:  # RuntimeError, or a type of OpenVINO's own
            raise failure(self.name, window, error) from error

    def close(self) -> None:
        self._requests.close()
        self._model = None

    def _build(self, shape: tuple[int, ...]):
        try:
            graph = cached_onnx(self._model, self._weights_hash, shape, self._cache_dir)
            network = self._core.read_model(graph)
            return self._core.compile_model(network, "CPU", self._options | self._cache()).create_infer_request()
        except Exception as error:  # the exporter and OpenVINO raise types of their own
            raise failure(self.name, shape, f"building: {error}") from error

    def _cache(self) -> dict[str, str]:
        """The option for OpenVINO's cache; none where somebody else could have written to it."""
        try:
            return {"CACHE_DIR": str(private_folder(self._cache_dir / "openvino"))}
        except OSError as error:
            log.warning("compiling without a cache: %s", error)
            return {}
