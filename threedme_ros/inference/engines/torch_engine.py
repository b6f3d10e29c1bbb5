"""PyTorch, eagerly: every device torch knows, nothing to build. In fp32 on the CPU it is what others are held to."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from threedme_ros.inference.engines import EngineError, EngineMemoryError, failure
from threedme_ros.inference.export import DTYPES, Predictor

PRECISIONS = tuple(DTYPES)


class TorchEngine:
    """``model`` (with `predict`) on ``device``; "bf16" and "fp16" run convolutions and matrix products so (autocast).

    precision: "auto" is fp32 on the CPU and fp16 elsewhere.
    """

    name = "torch"
    building = False  # ever

    def __init__(self, model: nn.Module, *, device: str = "cpu", precision: str = "auto") -> None:
        try:
            self._device = torch.device(device)
            torch.empty(0, device=self._device)  # a build without CUDA says so only now
            # channels last: the channel norms and the 1x1 convolutions then read each voxel's channels in one piece
            self._predictor = Predictor(model).eval().to(self._device, memory_format=torch.channels_last_3d)
        except (RuntimeError, AssertionError) as error:
            raise EngineError(f"torch: device {device!r}: {str(error).strip().partition(chr(10))[0]}") from error
        if precision == "auto":
            precision = "fp32" if self._device.type == "cpu" else "fp16"
        if precision not in PRECISIONS:
            raise EngineError(f"torch: precision {precision!r}: expected auto or one of {PRECISIONS}")
        self.device, self.precision = str(self._device), precision

    def run(self, window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self._predictor is None:
            raise EngineError("torch: the engine is closed")
        half = torch.autocast(self._device.type, DTYPES[self.precision], enabled=self.precision != "fp32")
        try:
            x = torch.from_numpy(window).to(self._device)
            x = x[None, None] if x.ndim == 3 else x[None]  # (D, H, W) or (C, D, H, W) -> (1, C, D, H, W)
            with torch.inference_mode(), half:
                labels, confidence = self._predictor(x)
            return labels.cpu().numpy(), confidence.cpu().numpy()
        except (RuntimeError, MemoryError) as error:
            failed, cause = failure(self.name, window.shape[-3:], error), error
        # out here the exception no longer holds the tensors of the frame that failed
        if isinstance(failed, EngineMemoryError) and self._device.type == "cuda":
            torch.cuda.empty_cache()
        raise failed from cause.with_traceback(None)

    def close(self) -> None:
        self._predictor = None
