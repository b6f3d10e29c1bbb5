"""The network as an ONNX graph of one static shape and one precision, in operators that every runtime takes.

TensorRT 11 takes the type of every tensor from the graph ("strongly typed") and has no switch for another precision, so
a half-precision graph is exported from a half-precision network: weights and features are fp16 or bf16, while input and
outputs, the sampling of the planes, the choice of neighbours and the softmax stay fp32.

TensorRT and OpenVINO refuse a 5-D GridSample, TensorRT more than 8 dimensions, and a Scatter is wrong or slow in both;
`portability_problems` says where a graph leaves the common ground.
"""

from __future__ import annotations

import copy
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
from torch.nn.utils.fusion import fuse_conv_bn_eval

from threedme_ros import model as model_package
from threedme_ros.inference.engines.build_cache import cached_build

if TYPE_CHECKING:
    import onnx

OPSETS = {"fp32": 18, "fp16": 18, "bf16": 22}
"""The oldest with every operator used (LayerNormalization 17, axes as inputs 18, convolution in bf16 22), so that every
runtime knows it."""

INPUT, LABELS, CONFIDENCE = "volume", "labels", "confidence"
MAX_RANK = 8
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

# fmt: off
PORTABLE_OPERATORS = frozenset((
    "Add", "ArgMax", "BatchNormalization", "Cast", "Concat", "Conv", "Cos", "Div", "Erf", "Exp", "Expand", "Gather",
    "Gelu", "GridSample", "LayerNormalization", "MatMul", "Max", "MaxPool", "Min", "Mul", "Pad", "Pow",
    "Reciprocal", "ReduceMax", "ReduceMean", "ReduceSum", "Relu", "Reshape", "Resize", "Sin", "Slice", "Softmax",
    "Split", "Sqrt", "Squeeze", "Sub", "TopK", "Transpose", "Unsqueeze",
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
    """(1, 1, D, H, W) float32 in [-1, 1] -> labels (D, H, W) uint8, confidence (D, H, W) float32 in 0..1.

    ``model`` (with `predict`) computes in ``dtype``, which its weights have already.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.model, self.dtype = model, dtype

    def forward(self, volume: Tensor) -> tuple[Tensor, Tensor]:
        labels, confidence = self.model.predict(volume.to(self.dtype))
        return labels[0].to(torch.uint8), confidence[0].float()


def fold_norms(model: nn.Module) -> nn.Module:
    """Every batch norm that follows a convolution in a Sequential becomes part of it, in place, while still in fp32.

    (The exporter would fold them too, but in bf16 it leaves fp32 weights behind, which is no valid graph.)
    """
    for sequence in (m for m in model.modules() if isinstance(m, nn.Sequential)):
        for index in range(1, len(sequence)):
            convolution, norm = sequence[index - 1], sequence[index]
            if isinstance(convolution, nn.Conv3d) and isinstance(norm, nn.BatchNorm3d):
                sequence[index - 1] = fuse_conv_bn_eval(convolution, norm)
                sequence[index] = nn.Identity()
    return model


def export_onnx(model: nn.Module, shape: tuple[int, int, int], precision: str = "fp32") -> bytes:
    """``model`` (with `predict`, fp32 on the CPU) for windows of ``shape`` (D, H, W) -> a self-contained ONNX file.

    precision: one of `DTYPES`. Inputs and outputs are those of `Predictor`, "volume", "labels" and "confidence".
    """
    if precision not in DTYPES:
        raise ValueError(f"precision {precision!r}: expected one of {sorted(DTYPES)}")
    dtype = DTYPES[precision]
    model = fold_norms(copy.deepcopy(model).eval()).to(dtype)
    example = torch.zeros(1, 1, *shape)
    with quiet():
        program = torch.onnx.export(
            Predictor(model, dtype).eval(),
            (example,),
            dynamo=True,
            opset_version=OPSETS[precision],
            input_names=[INPUT],
            output_names=[LABELS, CONFIDENCE],
            verbose=False,
        )
    return program.model_proto.SerializeToString()


def cached_onnx(
    model: nn.Module, weights_hash: str, shape: tuple[int, int, int], cache_dir: Path, precision: str = "fp32"
) -> bytes:
    """`export_onnx`, some ten seconds of tracing, from the cache where it holds this graph."""
    import onnx

    versions = ("torch", torch.__version__, "onnx", onnx.__version__)
    key = (weights_hash, tuple(shape), precision, SOURCE_DIGEST, *versions)
    return cached_build(cache_dir, "onnx", key, lambda: export_onnx(model, shape, precision))


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
def quiet() -> Iterator[None]:
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
