"""Stands in for OpenVINO and onnxruntime inside a node: the packages of these names that it finds first.

Each computes what torch computes, and fails on demand: the file ``$FAULTS/<name>`` holds how. ``$FAULTS/<name>.busy``
is there while it runs.
"""

from pathlib import Path

from runtime_shell import SHELL

TEXT = """
import os
import time
from pathlib import Path

import numpy as np

from threedme_ros.inference.engines import build_cache, onnxruntime_engine, openvino_engine
from threedme_ros.inference.engines.torch_engine import TorchEngine

NAME, FOLDER = __name__, Path(os.environ["FAULTS"])
BUSY = FOLDER / f"{NAME}.busy"
engines = []

def cached_onnx(model, weights_hash, shape, cache_dir, *_):
    engines[:] = [TorchEngine(model, precision="fp32")]
    return build_cache.cached_build(cache_dir, NAME, (weights_hash, shape), built)

def built():
    while how() == "build":
        BUSY.touch()
        time.sleep(0.02)
    BUSY.unlink(missing_ok=True)
    return bytes(100_000)

{"openvino": openvino_engine, "onnxruntime": onnxruntime_engine}[NAME].cached_onnx = cached_onnx

def how():
    try:
        return (FOLDER / NAME).read_text()
    except FileNotFoundError:
        return ""

def compute(x):
    BUSY.touch()
    try:
        while how() == "hang":
            time.sleep(0.02)
        if how() == "raise":
            raise RuntimeError("an exception of its own")
        labels, confidence = engines[0].run(np.ascontiguousarray(x[0, 0]))
        if how() == "nan":
            confidence[:] = np.nan
        return labels, confidence
    finally:
        BUSY.unlink(missing_ok=True)
"""


class Runtimes:
    """The two in ``folder``, and what they are told."""

    NAMES = ("openvino", "onnxruntime")

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        for name in self.NAMES:
            (folder / f"{name}.py").write_text(TEXT + SHELL)
        self.environment = {"PYTHONPATH": str(folder), "FAULTS": str(folder)}

    def tell(self, name: str, how: str) -> None:
        """how: hang, raise, nan, build (it is built for ever), or empty to work."""
        (self.folder / f"{name}.new").write_text(how)
        (self.folder / f"{name}.new").replace(self.folder / name)

    def heal(self) -> None:
        for name in self.NAMES:
            self.tell(name, "")

    def busy(self, name: str) -> bool:
        return (self.folder / f"{name}.busy").exists()
