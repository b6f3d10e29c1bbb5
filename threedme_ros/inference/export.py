"""The network as an ONNX graph of one static shape, in operators that every runtime takes.

TensorRT and OpenVINO refuse a 5-D GridSample, TensorRT more than 8 dimensions, and a Scatter is wrong or slow in both;
`portability_problems` says where a graph leaves the common ground.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from threedme_ros import model as model_package

if TYPE_CHECKING:
    import onnx

OPSET = 18
"""The oldest with every operator used (LayerNormalization 17, axes as inputs 18), so that every runtime knows it."""

INPUT, LABELS, CONFIDENCE = "volume", "labels", "confidence"
MAX_RANK = 8

# fmt: off
PORTABLE_OPERATORS = frozenset((
    "Add", "ArgMax", "Cast", "Concat", "Conv", "Div", "Erf", "Exp", "Expand", "Gather", "Gelu", "GridSample",
    "LayerNormalization", "MatMul", "Max", "MaxPool", "Min", "Mul", "Pad", "Pow", "Reciprocal", "ReduceMax",
    "ReduceMean", "ReduceSum", "Relu", "Reshape", "Resize", "Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Sub",
    "TopK", "Transpose", "Unsqueeze",
))
# fmt: on


def _source_digest() -> str:
    digest = hashlib.sha256()
    for path in [*sorted(Path(model_package.__file__).parent.glob("*.py")), Path(__file__)]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


SOURCE_DIGEST = _source_digest()
"""Of the code that a graph is traced from, as it was imported: a cached graph is stale when it changes."""


class Predictor(nn.Module):
    """(1, 1, D, H, W) float32 in [-1, 1] -> labels (D, H, W) uint8, confidence (D, H, W) float32 in 0..1."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, volume: Tensor) -> tuple[Tensor, Tensor]:
        labels, confidence = self.model.predict(volume)
        return labels[0].to(torch.uint8), confidence[0].float()


def export_onnx(model: nn.Module, shape: tuple[int, int, int]) -> bytes:
    """``model`` (with `predict`, on the CPU) for windows of ``shape`` (D, H, W) -> a self-contained ONNX file.

    Inputs and outputs are those of `Predictor`, named "volume", "labels" and "confidence".
    """
    example = torch.zeros(1, 1, *shape)
    with _quiet():
        program = torch.onnx.export(
            Predictor(model).eval(),
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[LABELS, CONFIDENCE],
            verbose=False,
        )
    return program.model_proto.SerializeToString()


def operators(graph: onnx.ModelProto) -> Counter[str]:
    """How often each operator occurs; one of a foreign domain is named ``domain::operator``."""
    return Counter(f"{n.domain}::{n.op_type}" if n.domain else n.op_type for n in graph.graph.node)


def ranks(graph: onnx.ModelProto) -> dict[str, int]:
    """The number of dimensions of every tensor of the graph, by name."""
    from onnx import shape_inference

    inner = shape_inference.infer_shapes(graph, strict_mode=True).graph
    values = [*inner.value_info, *inner.input, *inner.output]
    return {v.name: len(v.type.tensor_type.shape.dim) for v in values} | {
        t.name: len(t.dims) for t in inner.initializer
    }


def portability_problems(graph: onnx.ModelProto) -> list[str]:
    """What a runtime of ours would refuse, one sentence each; empty for a portable graph."""
    rank = ranks(graph)
    problems = [
        f"operator {name} is not in the portable set" for name in operators(graph) if name not in PORTABLE_OPERATORS
    ]
    problems += [f"tensor {name} has {n} dimensions: at most {MAX_RANK}" for name, n in rank.items() if n > MAX_RANK]
    for node in graph.graph.node:
        if node.op_type == "GridSample" and rank[node.input[0]] != 4:
            problems.append(f"GridSample {node.name} on {rank[node.input[0]]} dimensions: expected 4")
        unknown = [name for name in node.output if name and name not in rank]
        problems += [f"tensor {name} of {node.op_type} has no known shape: expected a static one" for name in unknown]
    return problems


@contextmanager
def _quiet() -> Iterator[None]:
    # the exporter warns of torchvision's absence and of its own deprecations: nothing a user can act on
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
