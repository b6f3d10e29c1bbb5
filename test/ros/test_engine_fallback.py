"""Engines that fail on purpose inside a running node: it says so, takes the next, and segments every volume."""

import json
import os

import pytest

pytest.importorskip("rclpy")
from perceiving import Perceiving
from runtime_shell import SHELL

from threedme_ros.inference.made_by import MadeBy
from threedme_ros.phantom import phantom

# Stands in for both runtimes: the packages of these names that the node finds first.
RUNTIME = """
import os
import numpy as np
from threedme_ros.inference.engines import onnxruntime_engine, openvino_engine
from threedme_ros.inference.engines.torch_engine import TorchEngine

NAME, HOW = __name__, os.environ["FAIL_" + __name__.upper()]
models = []

def cached_onnx(model, *_):
    models.append(model)
    return b"graph"

{"openvino": openvino_engine, "onnxruntime": onnxruntime_engine}[NAME].cached_onnx = cached_onnx
runs = 0

def compute(x):
    global runs
    runs += 1
    labels, confidence = TorchEngine(models[0], precision="fp32").run(np.ascontiguousarray(x[0, 0]))
    if HOW == "nan":
        confidence[:] = np.nan
    if HOW == "disagrees":
        labels[:] = 0
    if HOW == "later out of memory" and runs > 2:  # after the gate and the warm-up
        raise RuntimeError("Failed to allocate memory for requested buffer of size 9")
    if HOW == "later crashes" and runs > 2:  # after the gate and the warm-up
        raise RuntimeError("an exception of its own")
    return labels, confidence
"""


@pytest.fixture
def failing(domain, tmp_path, random_checkpoint):
    """A node whose OpenVINO and onnxruntime fail in the ways named: failing("nan", "later crashes")."""
    before = dict(domain.environment)

    def start(openvino: str, onnxruntime: str) -> Perceiving:
        for name in ("openvino", "onnxruntime"):
            (tmp_path / f"{name}.py").write_text(RUNTIME + SHELL)
        domain.environment |= {
            "PYTHONPATH": os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH")))),
            "FAIL_OPENVINO": openvino,
            "FAIL_ONNXRUNTIME": onnxruntime,
        }
        namespace = f"/{openvino}".replace(" ", "_")
        process = domain.start(
            "perception",
            "-r",
            f"__ns:={namespace}",
            checkpoint=random_checkpoint,
            device="cpu",
            threads=1,
            incremental=False,
        )
        node = Perceiving(domain, process, f"{namespace}/perception")
        node.wait_for_subscription()
        return node

    yield start
    domain.environment.clear()
    domain.environment |= before


def test_one_without_numbers_is_refused_and_the_next_gives_way_when_memory_runs_out(failing) -> None:
    node = failing("nan", "later out of memory")
    assert (node.diagnostics["engine"], node.diagnostics["agreement"]) == ("onnxruntime", "100.000%")
    assert "openvino: on the probe volume its output is not finite" in node.diagnostics["refused"]
    node.segment(phantom((40, 32, 44), (9.0, 8.0, 9.5))[0])
    assert (node.diagnostics["engine"], node.diagnostics["precision"]) == ("torch", "fp32")
    assert "onnxruntime: window (64, 32, 48): Failed to allocate memory" in node.diagnostics["refused"]
    assert (node.count("failed"), node.count("segmented")) == (0, 1)
    assert "going on with torch on cpu" in node.process.output()


def test_one_that_disagrees_is_refused_and_the_next_gives_way_when_it_crashes(failing) -> None:
    node = failing("disagrees", "later crashes")
    assert node.diagnostics["engine"] == "onnxruntime"
    refused = node.diagnostics["refused"]
    assert refused.startswith("openvino in fp32 on cpu: labels as torch in fp32 on ")
    assert f"engine refused: {refused}" in node.process.output()
    for _ in range(2):
        node.segment(phantom((40, 32, 44), (9.0, 8.0, 9.5))[0])
    assert node.diagnostics["engine"] == "torch"
    assert (node.count("failed"), node.count("segmented")) == (0, 2)
    engines = [json.loads(message.data)["engine"] for message in node.received["label_info"]]
    assert (engines[0], engines[-1]) == ("onnxruntime", "torch")
    for trace, labels in zip(node.received["trace"], node.received["labels"], strict=True):
        made_by = MadeBy.from_json(trace.data)
        assert (made_by.engine, made_by.precision) == ("torch", "fp32")
        assert made_by.description.encode() in bytes(labels.data[:348])
