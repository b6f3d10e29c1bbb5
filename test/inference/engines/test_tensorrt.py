"""The glue around TensorRT, against a stand-in for its bindings: order of calls, refusals, what is kept.

That the real builder takes our graphs is tested in test_tensorrt_rtx.py; that a GPU runs them is tested nowhere here.
"""

import sys
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from threedme_ros.inference.engines import EngineError, EngineMemoryError, make_engine, tensorrt_engine
from threedme_ros.inference.engines.tensorrt_build import PROGRESS_PERIOD_S, build_plan, make_logger, make_monitor
from threedme_ros.inference.engines.tensorrt_engine import Gpu, TensorRtEngine, plan_key
from threedme_ros.inference.engines.tensorrt_program import StalePlanError

SHAPE = (16, 32, 48)
GPU = Gpu("NVIDIA H100 80GB HBM3", (9, 0), "NVRM version: 570.1 CUDA 12080")


class Bindings:
    """As much of `tensorrt` as a build touches. plan: what the builder gives; says: what it logs as an error first."""

    __version__ = "11.4.0"
    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
    MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
    BuilderFlag = SimpleNamespace(TF32="tf32")

    class ILogger:
        Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2, INFO=3)

        def __init__(self) -> None: ...

    class IProgressMonitor:
        def __init__(self) -> None: ...

    def __init__(self, plan: bytes | None = b"plan", says: str = "", parses: bool = True) -> None:
        self.plan, self.says, self.parses, self.calls, self.timing = plan, says, parses, [], None

    def Runtime(self, logger):  # noqa: N802 the bindings' name
        return self

    def Builder(self, logger):  # noqa: N802
        self.logger = logger
        return self

    def OnnxParser(self, network, logger):  # noqa: N802
        self.calls.append(network)
        return SimpleNamespace(
            parse=lambda graph: self.parses, num_errors=1, get_error=lambda i: "In node 7: no such operator\nstack"
        )

    def create_network(self, flags: int) -> str:
        return f"network {flags:#b}"

    def create_builder_config(self):
        return self

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        self.calls.append((pool, size))

    def clear_flag(self, flag: str) -> None:
        self.calls.append(f"no {flag}")

    def create_timing_cache(self, data: bytes):
        return None if data == b"damaged" else SimpleNamespace(data=data, serialize=lambda: data + b"+")

    def set_timing_cache(self, cache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if cache.data == b"of another GPU":
            return False
        self.timing = cache
        return True

    def get_timing_cache(self):
        return self.timing

    def build_serialized_network(self, network, config) -> bytes | None:
        self.calls.append("build")
        if self.says:
            self.logger.log(self.logger.Severity.ERROR, self.says)
        return self.plan


def built(trt: Bindings, **options):
    return build_plan(trt, make_logger(trt), b"graph", SHAPE, workspace_bytes=1 << 30, **options)


def test_a_network_is_strongly_typed_within_its_workspace_and_without_tf32() -> None:
    trt = Bindings()
    assert built(trt)[0] == b"plan"
    assert trt.calls == ["network 0b10", ("workspace", 1 << 30), "no tf32", "build"]


@pytest.mark.parametrize(
    ("stored", "learnt"),
    [(b"", b"+"), (b"known", b"known+"), (b"damaged", b"+"), (b"of another GPU", b"+")],
)
def test_a_timing_cache_is_used_if_it_is_of_this_gpu(stored: bytes, learnt: bytes) -> None:
    assert built(Bindings(), timing_cache=stored) == (b"plan", learnt)


def test_a_refused_graph_names_the_node() -> None:
    with pytest.raises(EngineError, match=r"^tensorrt: the graph is refused: In node 7: no such operator$"):
        built(Bindings(parses=False))


def test_a_failed_build_carries_tensorrts_reason_and_memory_is_told_apart() -> None:
    with pytest.raises(EngineError, match=r"^tensorrt: window \(16, 32, 48\): building: no kernel$") as caught:
        built(Bindings(plan=None, says="no kernel"))
    assert not isinstance(caught.value, EngineMemoryError)
    with pytest.raises(EngineMemoryError) as caught:
        built(Bindings(plan=None, says="Error Code 2: OutOfMemory (Requested size was 5 bytes.)"))
    assert caught.value.voxels == 16 * 32 * 48
    with pytest.raises(EngineError, match="no reason given"):
        built(Bindings(plan=None))


def test_a_line_of_progress_comes_every_few_seconds(caplog) -> None:
    caplog.set_level("INFO")
    now = 100.0
    monitor = make_monitor(Bindings(), "tensorrt: building", clock=lambda: now)
    monitor.phase_start("Building engine", None, 6)
    monitor.phase_start("Timing", "Building engine", 40)
    for step in range(20):
        now += PROGRESS_PERIOD_S / 9
        assert monitor.step_complete("Timing", step)
    monitor.phase_finish("Timing")
    assert caplog.messages == [
        "tensorrt: building: 5 s, Building engine 0/6 > Timing 9/40",
        "tensorrt: building: 10 s, Building engine 0/6 > Timing 18/40",
    ]


def test_a_plan_counts_for_exactly_what_it_was_built_for() -> None:
    key = plan_key(b"graph", "11.4", GPU, "fp16", SHAPE)
    others = [
        plan_key(b"other", "11.4", GPU, "fp16", SHAPE),
        plan_key(b"graph", "11.5", GPU, "fp16", SHAPE),
        plan_key(b"graph", "11.4", replace(GPU, name="NVIDIA H200"), "fp16", SHAPE),
        plan_key(b"graph", "11.4", replace(GPU, compute_capability=(8, 9)), "fp16", SHAPE),
        plan_key(b"graph", "11.4", replace(GPU, driver="NVRM version: 580.2 CUDA 13000"), "fp16", SHAPE),
        plan_key(b"graph", "11.4", GPU, "bf16", SHAPE),
        plan_key(b"graph", "11.4", GPU, "fp16", (16, 32, 64)),
    ]
    assert len({repr(k) for k in (key, *others)}) == 8
    assert key == plan_key(b"graph", "11.4", GPU, "fp16", list(SHAPE))


@pytest.fixture
def engine(monkeypatch, tmp_path, thresholds):
    """A TensorRtEngine on a GPU that is not there: engine(bindings, program)."""

    def make(trt: Bindings, program, **options) -> TensorRtEngine:
        monkeypatch.setitem(sys.modules, "tensorrt", trt)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
        monkeypatch.setattr(Gpu, "of", classmethod(lambda cls, device: GPU))
        monkeypatch.setattr(tensorrt_engine, "cached_onnx", lambda *_: b"graph")
        monkeypatch.setattr(tensorrt_engine, "Program", program)
        return TensorRtEngine(thresholds.build(), "hash", cache_dir=tmp_path, **options)

    return make


class Program:
    """Takes the plan b"plan" only."""

    def __init__(self, trt, runtime, plan: bytes, shape, device, logger) -> None:
        if plan != b"plan":
            raise StalePlanError("it cannot be deserialized: magic tag does not match")

    def run(self, window: np.ndarray):
        return np.zeros(window.shape, np.uint8), np.ones(window.shape, np.float32)


def window() -> np.ndarray:
    return np.zeros(SHAPE, np.float32)


def test_a_plan_is_built_once_and_read_by_the_next_start(engine) -> None:
    first, second = Bindings(), Bindings()
    assert engine(first, Program).run(window())[0].shape == SHAPE
    assert engine(second, Program).run(window())[0].shape == SHAPE
    assert ("build" in first.calls, "build" in second.calls) == (True, False)


def test_a_plan_that_tensorrt_does_not_take_is_built_again(engine, caplog) -> None:
    with pytest.raises(EngineError, match="the engine is not usable"):
        engine(Bindings(plan=b"a stale plan"), Program).run(window())  # stored, though nothing runs it
    trt = Bindings()
    assert engine(trt, Program).run(window())[0].shape == SHAPE
    assert "build" in trt.calls
    assert any("magic tag does not match; building it again" in line for line in caplog.messages)
    later = Bindings()
    engine(later, Program).run(window())
    assert "build" not in later.calls


def test_another_precision_is_another_plan(engine) -> None:
    engine(Bindings(), Program).run(window())
    trt = Bindings()
    engine(trt, Program, precision="bf16").run(window())
    assert "build" in trt.calls


def test_a_gpu_out_of_memory_is_a_memory_error_of_ours(engine) -> None:
    class Full(Program):
        def run(self, window):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    with pytest.raises(EngineMemoryError, match=r"^tensorrt: window \(16, 32, 48\): CUDA out of memory") as caught:
        engine(Bindings(), Full).run(window())
    assert caught.value.voxels == 16 * 32 * 48


def test_a_closed_engine_says_so(engine) -> None:
    closed = engine(Bindings(), Program)
    closed.close()
    closed.close()
    with pytest.raises(EngineError, match=r"^tensorrt: the engine is closed$"):
        closed.run(window())


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_it_says_what_it_needs(monkeypatch, thresholds) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", Bindings())
    monkeypatch.setattr("threedme_ros.inference.engines.find_spec", lambda package: package)
    with pytest.raises(EngineError, match=r"^tensorrt: device 'cuda': needs an NVIDIA GPU"):
        make_engine("tensorrt", thresholds, device="cuda")
    with pytest.raises(EngineError, match=r"^tensorrt: precision 'int8': expected auto or one of"):
        make_engine("tensorrt", thresholds, device="cuda", precision="int8")
