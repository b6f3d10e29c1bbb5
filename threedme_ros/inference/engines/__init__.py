"""What runs the network: one small interface, and the choice among what is installed.

An engine is made once, serves windows of any shape that is a multiple of 16, and builds what it needs for a shape when
it first meets it (warm it up with the shapes to come). It is used from one thread at a time.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from threedme_ros.model.checkpoint import Checkpoint

ENGINES = ("onnxruntime", "torch")
"""By name, the preferred first."""

PACKAGES = {"onnxruntime": ("onnxruntime", "onnx", "onnxscript"), "torch": ("torch",)}


class EngineError(RuntimeError):
    """An engine cannot be made, failed, or gave no usable result; the message starts with its name."""


class Engine(Protocol):
    """name: as in `ENGINES`. precision: e.g. "fp32", "bf16". device: e.g. "cpu", "cuda:0"."""

    name: str
    precision: str
    device: str

    def run(self, window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(D, H, W) float32 in [-1, 1], multiples of 16 -> labels (D, H, W) uint8, confidence (D, H, W) float32.

        Raises EngineError.
        """
        ...

    def close(self) -> None:
        """Free memory and devices. Calling it twice does no harm."""
        ...


def select_engine(
    name: str,
    checkpoint: Checkpoint,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    threads: int = 0,
    cache_dir: Path | None = None,
) -> Engine:
    """The engine called ``name``, with the weights of ``checkpoint``.

    "auto" is the first of `ENGINES` that is installed; on a GPU, torch. threads: 0 leaves the engine's default.
    cache_dir: where built engines are kept, None for the user's cache. Raises ValueError for an unknown name, and
    EngineError for a missing package (with the command that installs it), device or precision.
    """
    if name == "auto":
        usable = ENGINES if device == "cpu" and precision == "fp32" else ("torch",)
        name = next(n for n in usable if not missing_packages(n))
    if name not in ENGINES:
        raise ValueError(f"engine {name!r}: expected auto or one of {ENGINES}")
    if missing := missing_packages(name):
        raise EngineError(f"{name}: {', '.join(missing)} not installed; pip install {' '.join(missing)}")
    if name == "torch":
        from threedme_ros.inference.engines.torch_engine import TorchEngine

        return TorchEngine(checkpoint.build(), device=device, precision=precision)
    from threedme_ros.inference.engines.onnxruntime_engine import OnnxRuntimeEngine

    return OnnxRuntimeEngine(
        checkpoint.build(), checkpoint.hash, device=device, precision=precision, threads=threads, cache_dir=cache_dir
    )


def missing_packages(name: str) -> list[str]:
    """Which packages the engine called ``name`` lacks here."""
    return [package for package in PACKAGES[name] if find_spec(package) is None]
