import copy

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from threedme_ros.inference.export import (
    PORTABLE_OPERATORS,
    export_onnx,
    fold_norms,
    operators,
    portability_problems,
    ranks,
)
from threedme_ros.model.config import ModelConfig
from threedme_ros.model.layers import VoxelNorm
from threedme_ros.model.threedme import ThreeDME

CONFIGS = {
    "small": ModelConfig.of_size("small", 17),
    # what base and large have that small lacks: 8^3 tokens; their further layers repeat these
    "like base": ModelConfig("base", 5, channels=(8, 8, 8), token_size=8, vit_dim=24, vit_depth=1),
}
SHAPE = (32, 48, 64)


@pytest.fixture(scope="module", params=CONFIGS)
def exported(request) -> tuple[ThreeDME, bytes]:
    torch.manual_seed(0)
    model = ThreeDME(CONFIGS[request.param]).eval()
    return model, export_onnx(model, SHAPE)


def test_the_graph_is_portable(exported) -> None:
    graph = onnx.load_from_string(exported[1])
    onnx.checker.check_model(graph, full_check=True)
    found = operators(graph)
    assert set(found) <= PORTABLE_OPERATORS
    assert not [name for name in found if "Scatter" in name]
    assert found["GridSample"] == 9 * exported[0].config.plane_layers
    assert max(ranks(graph).values()) <= 8
    assert portability_problems(graph) == []


def test_inputs_and_outputs_are_named_and_static(exported) -> None:
    graph = onnx.load_from_string(exported[1]).graph
    described = {
        v.name: (v.type.tensor_type.elem_type, tuple(d.dim_value for d in v.type.tensor_type.shape.dim))
        for v in (*graph.input, *graph.output)
    }
    assert described == {
        "volume": (TensorProto.FLOAT, (1, 1, *SHAPE)),
        "labels": (TensorProto.UINT8, SHAPE),
        "confidence": (TensorProto.FLOAT, SHAPE),
    }


def test_the_graph_computes_what_the_network_does(exported) -> None:
    model, data = exported
    x = np.random.default_rng(0).uniform(-1, 1, (1, 1, *SHAPE)).astype(np.float32)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    labels, confidence = session.run(["labels", "confidence"], {"volume": x})
    with torch.inference_mode():
        expected, certainty = model.predict(torch.from_numpy(x))
    assert (labels == expected[0].numpy()).mean() > 0.999
    np.testing.assert_allclose(confidence, certainty[0].numpy(), atol=1e-4)


@pytest.fixture(scope="module", params=["fp16", "bf16"])
def half(request) -> tuple[ThreeDME, str, onnx.ModelProto]:
    torch.manual_seed(0)
    model = ThreeDME(CONFIGS["like base"]).eval()
    for norm in (m for m in model.modules() if isinstance(m, torch.nn.BatchNorm3d)):
        norm.running_mean.uniform_(-0.2, 0.2)
        norm.running_var.uniform_(0.5, 2)
    return model, request.param, onnx.load_from_string(export_onnx(model, SHAPE, request.param))


def test_a_half_precision_graph_is_portable_and_valid(half) -> None:
    onnx.checker.check_model(half[2], full_check=True)
    assert portability_problems(half[2]) == []


def test_what_needs_fp32_keeps_it_in_a_half_precision_graph(half) -> None:
    _, precision, proto = half
    low = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}[precision]
    graph = onnx.shape_inference.infer_shapes(proto, strict_mode=True).graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.input, *graph.output)}
    types |= {t.name: t.data_type for t in graph.initializer}
    for node in graph.node:
        kinds = [types[name] for name in node.input if name]
        if node.op_type == "Conv":
            assert kinds == [low] * len(kinds)
        elif node.op_type == "GridSample":
            assert kinds == [TensorProto.FLOAT] * 2
        elif node.op_type == "TopK":
            assert kinds[0] == TensorProto.FLOAT
        elif node.op_type == "Gather":  # no index was ever a float
            assert kinds[1] == TensorProto.INT64
    assert [types[v.name] for v in (*graph.input, *graph.output)] == [
        TensorProto.FLOAT, TensorProto.UINT8, TensorProto.FLOAT,
    ]  # fmt: skip


def test_an_fp16_graph_computes_what_the_network_does(half) -> None:
    model, precision, proto = half
    if precision != "fp16":
        pytest.skip("onnxruntime has no bf16 kernels for the CPU")
    x = np.random.default_rng(0).uniform(-1, 1, (1, 1, *SHAPE)).astype(np.float32)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    labels, confidence = session.run(["labels", "confidence"], {"volume": x})
    with torch.inference_mode():
        expected, certainty = model.predict(torch.from_numpy(x))
    assert (labels == expected[0].numpy()).mean() > 0.99
    np.testing.assert_allclose(confidence, certainty[0].numpy(), atol=5e-3)


def test_folded_norms_leave_the_network_as_it_was() -> None:
    torch.manual_seed(0)
    model = ThreeDME(CONFIGS["like base"]).eval()
    for norm in (m for m in model.modules() if isinstance(m, torch.nn.BatchNorm3d)):
        norm.running_mean.uniform_(-0.2, 0.2)
        norm.running_var.uniform_(0.5, 2)
    x = torch.rand(1, 1, 16, 32, 16) * 2 - 1
    with torch.inference_mode():
        expected = model(x)
        folded = fold_norms(copy.deepcopy(model))
        torch.testing.assert_close(folded(x), expected, rtol=1e-4, atol=1e-5)
    kinds = [type(m) for s in folded.modules() if isinstance(s, torch.nn.Sequential) for m in s]
    assert VoxelNorm not in kinds
    assert torch.nn.Identity in kinds


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match=r"precision 'int4': expected one of \['bf16', 'fp16', 'fp32'\]"):
        export_onnx(torch.nn.Identity(), SHAPE, "int4")


def graph_of(node: onnx.NodeProto, inputs: dict[str, tuple], output: tuple) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, output)
    graph = helper.make_graph([node], "g", values, [result])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


def test_a_graph_off_the_common_ground_is_named() -> None:
    volume = {"x": (1, 1, 4, 4, 4), "grid": (1, 4, 4, 4, 3)}
    sample = graph_of(helper.make_node("GridSample", ["x", "grid"], ["y"], name="s"), volume, (1, 1, 4, 4, 4))
    assert portability_problems(sample) == ["GridSample s on 5 dimensions: expected 4"]
    deep = graph_of(helper.make_node("Relu", ["x"], ["y"]), {"x": (1,) * 9}, (1,) * 9)
    assert portability_problems(deep) == [f"tensor {name} has 9 dimensions: at most 8" for name in "xy"]
    foreign = graph_of(helper.make_node("Sinh", ["x"], ["y"]), {"x": (1,)}, (1,))
    assert portability_problems(foreign) == ["operator Sinh is not in the portable set"]
