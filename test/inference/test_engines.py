import numpy as np
import pytest
import torch

from threedme_ros.anatomy import Anatomy
from threedme_ros.inference import engines
from threedme_ros.inference.engines import EngineError, select_engine
from threedme_ros.inference.engines.onnxruntime_engine import MAX_SESSIONS, OnnxRuntimeEngine
from threedme_ros.inference.engines.torch_engine import TorchEngine
from threedme_ros.inference.preprocess import prepare
from threedme_ros.inference.segmenter import Segmenter
from threedme_ros.model.checkpoint import load_checkpoint
from threedme_ros.share import DEMO_CHECKPOINT, share_path


def window(shape=(16, 32, 16)) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


@pytest.mark.parametrize("name", ["torch", "onnxruntime"])
def test_an_engine_gives_labels_and_confidence_of_the_window(name: str, thresholds) -> None:
    x = window()
    engine = select_engine(name, thresholds)
    labels, confidence = engine.run(x)
    assert (engine.name, engine.precision, engine.device) == (name, "fp32", "cpu")
    assert (labels.dtype, confidence.dtype) == (np.uint8, np.float32)
    np.testing.assert_array_equal(labels, (x > 0).astype(np.uint8) + (x > 0.5))
    np.testing.assert_allclose(confidence, 0.5 + 0.5 * np.abs(x), atol=1e-6)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match=f"^{name}: the engine is closed"):
        engine.run(x)


def test_auto_is_onnxruntime_where_installed_and_torch_elsewhere(thresholds, monkeypatch) -> None:
    assert select_engine("auto", thresholds).name == "onnxruntime"
    assert select_engine("auto", thresholds, precision="bf16").name == "torch"
    monkeypatch.setattr(engines, "find_spec", lambda package: None if package == "onnxscript" else package)
    assert select_engine("auto", thresholds).name == "torch"
    with pytest.raises(EngineError, match=r"^onnxruntime: onnxscript not installed; pip install onnxscript$"):
        select_engine("onnxruntime", thresholds)


def test_what_no_engine_offers_is_refused(thresholds) -> None:
    with pytest.raises(ValueError, match="engine 'tpu': expected auto or one of"):
        select_engine("tpu", thresholds)
    for name in engines.ENGINES:
        with pytest.raises(EngineError, match=f"^{name}: precision 'int4': expected"):
            select_engine(name, thresholds, precision="int4")
        with pytest.raises(EngineError, match=f"^{name}: device 'toaster'"):
            select_engine(name, thresholds, device="toaster")


def test_a_failure_inside_carries_the_engines_name_and_the_window() -> None:
    class Broken(torch.nn.Module):
        def predict(self, x):
            raise RuntimeError("no memory\nat 0x123")

    with pytest.raises(EngineError, match=r"^torch: window \(16, 32, 16\): no memory$"):
        TorchEngine(Broken()).run(window())
    with pytest.raises(EngineError, match=r"^onnxruntime: building for windows of \(16, 32, 16\)"):
        OnnxRuntimeEngine(Broken(), "hash").run(window())


def test_sessions_are_built_once_a_shape_and_bounded(thresholds, monkeypatch, tmp_path) -> None:
    engine = OnnxRuntimeEngine(thresholds.build(), "hash", cache_dir=tmp_path / "cache")
    shapes = [(16, 16, 16 * n) for n in range(1, MAX_SESSIONS + 2)]
    for shape in (*shapes, shapes[-1]):
        engine.run(window(shape))
    assert list(engine._sessions) == shapes[1:]
    assert len(list((tmp_path / "cache").iterdir())) == len(shapes)

    def fails(*_) -> bytes:
        raise AssertionError("the cache holds this graph")

    monkeypatch.setattr("threedme_ros.inference.engines.onnxruntime_engine.export_onnx", fails)
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


def test_torch_and_onnxruntime_agree_on_the_sample_ct(sample) -> None:
    checkpoint, ct = sample
    x = prepare(ct, checkpoint.preprocessing).x
    labels = {name: Segmenter(checkpoint, engine=name).predict(x)[0] for name in ("torch", "onnxruntime")}
    agreement = (labels["torch"] == labels["onnxruntime"]).mean()
    print(f"torch = onnxruntime on {agreement:.4%} of {x.size} voxels")
    assert agreement >= 0.999
    assert len(np.unique(labels["torch"])) > 5, "an empty segmentation agrees with everything"


def test_bf16_on_the_cpu_agrees_with_fp32_on_the_sample_ct(sample) -> None:
    checkpoint, ct = sample
    x = prepare(ct, checkpoint.preprocessing).x
    labels = [Segmenter(checkpoint, engine="torch", precision=p).predict(x)[0] for p in ("fp32", "bf16")]
    agreement = (labels[0] == labels[1]).mean()
    print(f"bf16 = fp32 on {agreement:.4%} of {x.size} voxels")
    assert agreement >= 0.995


def test_the_sample_ct_has_the_same_labels_in_space_in_every_orientation(sample) -> None:
    checkpoint, ct = sample
    assert isinstance(checkpoint.anatomy, Anatomy)
    segmenter = Segmenter(checkpoint, engine="torch", precision="bf16")
    expected = segmenter.segment(ct).labels
    for codes in ("LPS", "RAI", "SLA"):
        turned, _ = ct.reoriented(codes)
        labels = segmenter.segment(turned).labels
        assert labels.grid.matches(turned.grid)
        back, _ = labels.reoriented("".join(expected.grid.orientation))
        np.testing.assert_array_equal(back.voxels, expected.voxels)
