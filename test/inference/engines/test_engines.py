from types import SimpleNamespace

import numpy as np
import pytest
import torch

from threedme_ros.anatomy import Anatomy
from threedme_ros.inference import engines
from threedme_ros.inference.engines import EngineError, EngineMemoryError, failure, make_engine
from threedme_ros.inference.engines.onnxruntime_engine import MAX_SESSIONS, OnnxRuntimeEngine
from threedme_ros.inference.engines.torch_engine import TorchEngine
from threedme_ros.inference.preprocess import prepare
from threedme_ros.inference.segmenter import Segmenter
from threedme_ros.model.checkpoint import load_checkpoint
from threedme_ros.share import DEMO_CHECKPOINT, share_path


def window(shape=(16, 32, 16)) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


ON_THE_CPU = ("openvino", "onnxruntime", "torch")


@pytest.mark.parametrize("name", ON_THE_CPU)
def test_an_engine_gives_labels_and_confidence_of_the_window(name: str, thresholds) -> None:
    x = window()
    engine = make_engine(name, thresholds, precision="fp32")
    labels, confidence = engine.run(x)
    assert (engine.name, engine.precision, engine.device) == (name, "fp32", "cpu")
    assert (labels.dtype, confidence.dtype) == (np.uint8, np.float32)
    np.testing.assert_array_equal(labels, (x > 0).astype(np.uint8) + (x > 0.5))
    np.testing.assert_allclose(confidence, 0.5 + 0.5 * np.abs(x), atol=1e-6)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match=f"^{name}: the engine is closed"):
        engine.run(x)


def test_what_no_engine_offers_is_refused(thresholds, monkeypatch) -> None:
    with pytest.raises(ValueError, match="engine 'tpu': expected auto or one of"):
        make_engine("tpu", thresholds)
    for name in ON_THE_CPU:
        with pytest.raises(EngineError, match=f"^{name}: precision 'int4': expected"):
            make_engine(name, thresholds, precision="int4")
        with pytest.raises(EngineError, match=f"^{name}: device 'toaster'"):
            make_engine(name, thresholds, device="toaster")
    monkeypatch.setattr(engines, "find_spec", lambda package: None if package == "onnxscript" else package)
    with pytest.raises(EngineError, match=r"^onnxruntime: onnxscript not installed; pip install onnxscript$"):
        make_engine("onnxruntime", thresholds)


def test_openvino_computes_in_bf16_where_the_processor_does(thresholds) -> None:
    openvino = pytest.importorskip("openvino")
    able = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert make_engine("openvino", thresholds).precision == ("bf16" if able else "fp32")


def test_openvino_keeps_what_it_compiled_and_survives_damage_to_it(thresholds, tmp_path) -> None:
    x, results = window(), []
    for _ in range(2):
        results.append(make_engine("openvino", thresholds, precision="fp32", cache_dir=tmp_path).run(x)[0])
        compiled = [path for path in (tmp_path / "openvino").rglob("*") if path.is_file()]
        assert compiled
        for path in compiled:
            path.write_bytes(path.read_bytes()[:100])
    results.append(make_engine("openvino", thresholds, precision="fp32", cache_dir=tmp_path).run(x)[0])
    for labels in results:
        np.testing.assert_array_equal(labels, (x > 0).astype(np.uint8) + (x > 0.5))


@pytest.mark.parametrize(
    "text",
    [
        "CUDA out of memory. Tried to allocate 2 GiB",
        "Error Code 2: OutOfMemory (Requested size was 5 bytes.)",
        "[ONNXRuntimeError] : Failed to allocate memory for requested buffer of size 7",
        "std::bad_alloc",
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes",
    ],
)
def test_exhausted_memory_is_told_from_other_failures(text: str) -> None:
    error = failure("torch", (16, 16, 32), RuntimeError(text))
    assert isinstance(error, EngineMemoryError)
    assert error.voxels == 16 * 16 * 32
    assert not isinstance(failure("torch", (16, 16, 32), RuntimeError("shapes differ")), EngineMemoryError)


def test_a_failure_inside_carries_the_engines_name_and_the_window() -> None:
    class Broken(torch.nn.Module):
        def predict(self, x):
            raise RuntimeError("no memory\nat 0x123")

    with pytest.raises(EngineError, match=r"^torch: window \(16, 32, 16\): no memory$"):
        TorchEngine(Broken()).run(window())
    for name in ("onnxruntime", "openvino"):
        broken = SimpleNamespace(build=Broken, hash="hash")
        with pytest.raises(EngineError, match=rf"^{name}: window \(16, 32, 16\): building"):
            make_engine(name, broken).run(window())


def test_sessions_are_built_once_a_shape_and_bounded(thresholds, monkeypatch, tmp_path) -> None:
    engine = OnnxRuntimeEngine(thresholds.build(), "hash", cache_dir=tmp_path / "cache")
    shapes = [(16, 16, 16 * n) for n in range(1, MAX_SESSIONS + 2)]
    for shape in (*shapes, shapes[-1]):
        engine.run(window(shape))
    assert engine._sessions.shapes() == shapes[1:]
    assert len(list((tmp_path / "cache").iterdir())) == len(shapes)

    def fails(*_) -> bytes:
        raise AssertionError("the cache holds this graph")

    monkeypatch.setattr("threedme_ros.inference.export.export_onnx", fails)
    OnnxRuntimeEngine(thresholds.build(), "hash", cache_dir=tmp_path / "cache").run(window(shapes[0]))
    with pytest.raises(EngineError, match="the cache holds this graph"):
        OnnxRuntimeEngine(thresholds.build(), "other", cache_dir=tmp_path / "cache").run(window(shapes[0]))


@pytest.fixture(scope="module")
def sample():
    """The shipped checkpoint and patient A's CT."""
    samples = pytest.importorskip("threedme_ros.samples", reason="no reader of the sample CT")
    try:
        checkpoint = load_checkpoint(share_path(DEMO_CHECKPOINT))
    except FileNotFoundError as error:
        pytest.skip(f"no shipped checkpoint: {error}")
    try:
        return checkpoint, samples.sample_case("A").image()
    except samples.SampleError as error:
        pytest.skip(f"no sample CT: {error}")


@pytest.fixture(scope="module")
def reference(sample) -> tuple[np.ndarray, np.ndarray]:
    """Patient A's CT as the network sees it, and what torch makes of it in fp32."""
    checkpoint, ct = sample
    x = prepare(ct, checkpoint.preprocessing).x
    labels, _ = Segmenter(checkpoint, engine="torch", device="cpu").predict(x)
    assert len(np.unique(labels)) > 5, "an empty segmentation agrees with everything"
    return x, labels


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """One cache for the engines that are compared: they run the same graph, some ten seconds of export."""
    return tmp_path_factory.mktemp("graphs")


LEAST = {"fp32": 0.9999, "bf16": 0.995}


@pytest.mark.parametrize(
    ("name", "precision"),
    [("openvino", "fp32"), ("openvino", "bf16"), ("onnxruntime", "fp32"), ("torch", "bf16")],
)
def test_every_engine_agrees_with_torch_in_fp32_on_the_sample_ct(
    sample, reference, graphs, name, precision, capsys
) -> None:
    checkpoint, _ = sample
    x, expected = reference
    segmenter = Segmenter(checkpoint, engine=name, precision=precision, device="cpu", min_agreement=0, cache_dir=graphs)
    labels, _ = segmenter.predict(x)
    assert segmenter.engine.name == name
    share = (labels == expected).mean()
    with capsys.disabled():
        print(f"\n{name} {precision} = torch fp32 on {share:.4%} of {x.size} voxels of patient A", end=" ")
    assert share >= LEAST[precision]


def test_the_sample_ct_has_the_same_labels_in_space_in_every_orientation(sample) -> None:
    checkpoint, ct = sample
    assert isinstance(checkpoint.anatomy, Anatomy)
    segmenter = Segmenter(checkpoint, engine="torch", precision="bf16", device="cpu", min_agreement=0)
    expected = segmenter.segment(ct).labels
    for codes in ("LPS", "RAI", "SLA"):
        turned, _ = ct.reoriented(codes)
        labels = segmenter.segment(turned).labels
        assert labels.grid.matches(turned.grid)
        back, _ = labels.reoriented("".join(expected.grid.orientation))
        np.testing.assert_array_equal(back.voxels, expected.voxels)
