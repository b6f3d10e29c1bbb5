"""The exported graphs in TensorRT-RTX: parsed, and built ahead of time for GPUs that are not here.

RTX is another product than TensorRT, with the same parser and the same strong typing: evidence about the graphs and
about `build_plan`, no proof of a run. Without `make test-tensorrt`, which builds every graph, it is one small graph,
and only where the wheels are installed.
"""

import ctypes
import os
import time
from importlib.util import find_spec
from pathlib import Path

import onnx
import pytest
import torch

from threedme_ros.inference.engines import EngineError
from threedme_ros.inference.engines.tensorrt_build import build_plan, make_logger
from threedme_ros.inference.export import export_onnx, portability_problems
from threedme_ros.model.config import ModelConfig
from threedme_ros.model.threedme import ThreeDME

BINDINGS, LIBRARIES = "tensorrt_rtx_bindings", "onnxruntime_ep_nv_tensorrt_rtx"
TARGETS = ("SM80", "SM86", "SM89", "SM120")
"""Ampere, Ada, Blackwell. RTX compiles no fp32 matrix product for Turing (SM75), and neighbours are chosen in fp32."""

TINY = ModelConfig("tiny", 5, channels=(8, 8, 8), token_size=8, vit_dim=24, vit_depth=1)
WINDOW, WHOLE = (96, 96, 96), {"small": (128, 256, 256), "base": (128, 128, 128), "large": (128, 128, 128)}
"""WHOLE: the largest volume, (D, H, W), that each size takes in one pass."""
GRAPHS = [("tiny", (16, 32, 48), "fp16")]
if os.environ.get("THREEDME_ALL_GRAPHS"):
    GRAPHS += [(size, shape, "fp16") for size in WHOLE for shape in (WINDOW, WHOLE[size])]
    GRAPHS += [("small", WINDOW, "bf16"), ("small", WINDOW, "fp32")]

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def trt():
    missing = [name for name in (BINDINGS, LIBRARIES) if find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: `make test-tensorrt` does it (170 MB)")
    (folder,) = map(Path, find_spec(LIBRARIES).submodule_search_locations)
    # the bindings' wheel has no libraries; loaded beforehand, these satisfy it by their soname
    for name in ("libcudart.so.12", "libtensorrt_rtx.so.1", "libtensorrt_onnxparser_rtx.so.1"):
        (library,) = folder.glob(f"{name}.*")
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    import tensorrt_rtx_bindings

    return tensorrt_rtx_bindings


def targets(trt, names: tuple[str, ...]):
    """What makes the builder build for GPUs that are not here; only RTX has that."""

    def configure(config) -> None:
        config.num_compute_capabilities = len(names)
        for index, name in enumerate(names):
            assert config.set_compute_capability(getattr(trt.ComputeCapability, name), index)

    return configure


@pytest.mark.parametrize(("size", "shape", "precision"), GRAPHS)
@pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops:DeprecationWarning")
def test_every_graph_parses_and_builds(trt, size: str, shape: tuple[int, int, int], precision: str, capsys) -> None:
    torch.manual_seed(0)
    model = ThreeDME(TINY if size == "tiny" else ModelConfig.of_size(size, 17)).eval()
    graph = export_onnx(model, shape, precision)
    assert portability_problems(onnx.load_from_string(graph)) == []
    names = TARGETS if size != "tiny" else ("SM89",)
    began = time.monotonic()
    plan, _ = build_plan(trt, make_logger(trt), graph, shape, workspace_bytes=4 << 30, configure=targets(trt, names))
    with capsys.disabled():
        took = f"{len(plan) / 1e6:.0f} MB in {time.monotonic() - began:.0f} s"
        print(f"\n{size} {shape} {precision}: parsed, built for {', '.join(names)}: {took}", end=" ")
    assert len(plan) > 1e5


def test_a_graph_that_is_refused_says_why(trt) -> None:
    with pytest.raises(EngineError, match=r"^tensorrt: the graph is refused: "):
        build_plan(trt, make_logger(trt), b"no graph", (16, 16, 16), workspace_bytes=1 << 30)
