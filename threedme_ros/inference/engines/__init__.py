"""What runs the network: one small interface, and what is installed behind it.

An engine is made once, serves windows of any shape that is a multiple of 16, and builds what it needs for a shape when
it first meets it (warm it up with the shapes to come). It is used from one thread at a time. Which engine runs is
decided in `threedme_ros.inference.engines.chain`.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from threedme_ros.model.checkpoint import Checkpoint

ENGINES = ("tensorrt", "openvino", "onnxruntime", "torch")
"""By name, the preferred first."""

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
"""No engine takes all. "auto" is the engine's own choice for the device."""

DEFAULT_MIN_AGREEMENT = 0.995
"""The share of the probe volume's voxels on which an engine must give the labels of torch in fp32."""

PACKAGES = {
    "tensorrt": ("tensorrt", "onnx", "onnxscript"),
    "openvino": ("openvino", "onnx", "onnxscript"),
    "onnxruntime": ("onnxruntime", "onnx", "onnxscript"),
    "torch": ("torch",),
}


class EngineError(RuntimeError):
    """An engine cannot be made, failed, or gave no usable result; the message starts with its name."""


class EngineMemoryError(EngineError):
    """The device has too little memory for a window of ``voxels`` voxels; a smaller one may fit."""

    def __init__(self, message: str, voxels: int) -> None:
        super().__init__(message)
        self.voxels = voxels


class Engine(Protocol):
    """name: as in `ENGINES`. precision: e.g. "fp32", "bf16". device: e.g. "cpu", "cuda:0".

    building: `run` is building what it needs for a shape right now, which may take minutes; read from other threads.
    """

    name: str
    precision: str
    device: str
    building: bool

    def run(self, window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(D, H, W) float32 in [-1, 1], multiples of 16 -> labels (D, H, W) uint8, confidence (D, H, W) float32.

        Raises EngineError, EngineMemoryError where less would have fitted.
        """
        ...

    def close(self) -> None:
        """Free memory and devices. Calling it twice does no harm."""
        ...


def make_engine(
    name: str,
    checkpoint: Checkpoint,
    *,
    device: str = "cpu",
    precision: str = "auto",
    threads: int = 0,
    cache_dir: Path | None = None,
) -> Engine:
    """The engine called ``name``, with the weights of ``checkpoint``; nothing is built yet.

    threads: 0 leaves the engine's default. cache_dir: where built engines are kept, None for the user's cache.
    Raises ValueError for an unknown name, and EngineError for a missing package (with the command that installs it),
    device or precision.
    """
    if name not in ENGINES:
        raise ValueError(f"engine {name!r}: expected auto or one of {ENGINES}")
    if missing := missing_packages(name):
        raise EngineError(f"{name}: {', '.join(missing)} not installed; pip install {' '.join(missing)}")
    if name == "torch":
        from threedme_ros.inference.engines.torch_engine import TorchEngine

        return TorchEngine(checkpoint.build(), device=device, precision=precision)
    if name == "tensorrt":
        from threedme_ros.inference.engines.tensorrt_engine import TensorRtEngine as Made
    elif name == "openvino":
        from threedme_ros.inference.engines.openvino_engine import OpenVinoEngine as Made
    else:
        from threedme_ros.inference.engines.onnxruntime_engine import OnnxRuntimeEngine as Made
    options = {"device": device, "precision": precision, "threads": threads, "cache_dir": cache_dir}
    return Made(checkpoint.build(), checkpoint.hash, **options)


def missing_packages(name: str) -> list[str]:
    """Which packages the engine called ``name`` lacks here."""
    return [package for package in PACKAGES[name] if find_spec(package) is None]


def failure(name: str, window: np.ndarray | tuple[int, ...], error: Exception | str) -> EngineError:
    """``error`` as ours, on one line; runtimes tell of exhausted memory in words only."""
    shape = window.shape if isinstance(window, np.ndarray) else window
    text = str(error).strip().partition("\n")[0] or type(error).__name__
    message = f"{name}: window {tuple(shape)}: {text}"
    if isinstance(error, MemoryError) or tells_of_memory(str(error)):
        return EngineMemoryError(message, int(np.prod(shape)))
    return EngineError(message)


def tells_of_memory(text: str) -> bool:
    """Whether a runtime's error text says that memory ran out."""
    return any(word in text.lower() for word in _MEMORY_WORDS)


_MEMORY_WORDS = (
    "out of memory", "outofmemory", "out_of_memory", "bad_alloc", "failed to allocate", "can't allocate memory",
    "cannot allocate memory", "could not allocate", "insufficient memory", "not enough memory",
)  # fmt: skip
