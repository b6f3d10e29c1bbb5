import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from threedme_ros.inference.export import PORTABLE_OPERATORS, export_onnx, operators, portability_problems, ranks
from threedme_ros.model.config import ModelConfig
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
