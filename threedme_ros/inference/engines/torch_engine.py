"""PyTorch, eagerly: every device torch knows, nothing to build."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from threedme_ros.inference.engines import EngineError
from threedme_ros.inference.export import Predictor

PRECISIONS = ("fp32", "bf16")


class TorchEngine:
    """``model`` (with `predict`) on ``device``; "bf16" runs convolutions and matrix products in bfloat16 (autocast)."""

    name = "torch"

    def __init__(self, model: nn.Module, *, device: str = "cpu", precision: str = "fp32") -> None:
        if precision not in PRECISIONS:
            raise EngineError(f"torch: precision {precision!r}: expected one of {PRECISIONS}")
        try:
            self._device = torch.device(device)
            # channels last: the channel norms and the 1x1 convolutions then read each voxel's channels in one piece
            self._predictor = Predictor(model).eval().to(self._device, memory_format=torch.channels_last_3d)
        except (RuntimeError, AssertionError) as error:
            raise EngineError(f"torch: device {device!r}: {_first_line(error)}") from error
        self.device, self.precision = str(self._device), precision

    def run(self, window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self._predictor is None:
            raise EngineError("torch: the engine is closed")
        x = torch.from_numpy(window).to(self._device)
        x = x[None, None] if x.ndim == 3 else x[None]  # (D, H, W) or (C, D, H, W) -> (1, C, D, H, W)
        half = torch.autocast(self._device.type, torch.bfloat16, enabled=self.precision == "bf16")
        try:
            with torch.inference_mode(), half:
                labels, confidence = self._predictor(x)
            return labels.cpu().numpy(), confidence.cpu().numpy()
        except RuntimeError as error:
            raise EngineError(f"torch: window {window.shape}: {_first_line(error)}") from error

    def close(self) -> None:
        self._predictor = None


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
