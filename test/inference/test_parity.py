from types import SimpleNamespace

import numpy as np
import pytest

from threedme_ros.inference import choice
from threedme_ros.inference.engines import ENGINES, EngineError, EngineMemoryError
from threedme_ros.inference.parity import compare, make_probe
from threedme_ros.inference.segmenter import WARM_UP_SHAPE, Segmenter

SHAPE = (48, 64, 64)


class Failing:
    """Torch's labels, spoiled on purpose; as the engine called ``name``."""

    precision, device = "bf16", "cpu"

    def __init__(self, name: str, spoil) -> None:
        self.name, self._spoil, self.closed = name, spoil, False

    def run(self, window: np.ndarray):
        labels, confidence = (window > 0).astype(np.uint8) + (window > 0.5), 0.5 + 0.5 * np.abs(window)
        return self._spoil(labels.astype(np.uint8), confidence)

    def close(self) -> None:
        self.closed = True


def good(labels, confidence):
    return labels, confidence


def nan(labels, confidence):
    return labels, np.where(confidence == confidence.flat[7], np.float32(np.nan), confidence)


def disagreeing(labels, confidence):
    labels.ravel()[: labels.size // 100] ^= 1
    return labels, confidence


def losing_half_of_2(labels, confidence):
    places = np.flatnonzero(labels == 2)
    labels.ravel()[places[len(places) // 2 :]] = 1
    return labels, confidence


def out_of_memory(labels, confidence):
    raise EngineMemoryError(f"tensorrt: window {labels.shape}: CUDA out of memory", labels.size)


def logits_for_confidence(labels, confidence):
    return labels, confidence * 30


def crashing(labels, confidence):
    raise EngineError("openvino: an exception of its own")


@pytest.fixture
def engines(monkeypatch):
    """Replaces the engines by failing ones: engines(openvino=nan, onnxruntime=good); torch stays."""

    def install(**spoils) -> dict[str, Failing]:
        made, real = {}, choice.make_engine

        def make(name: str, checkpoint, **options):
            if name in spoils:
                made[name] = Failing(name, spoils[name])
                return made[name]
            if name == "torch":
                return real(name, checkpoint, **options)
            raise EngineError(f"{name}: not installed")

        monkeypatch.setattr(choice, "make_engine", make)
        return made

    return install


def test_the_probe_is_the_same_every_time_and_shows_more_than_air(thresholds) -> None:
    first, second = (make_probe(thresholds, SHAPE) for _ in range(2))
    np.testing.assert_array_equal(first.x, second.x)
    np.testing.assert_array_equal(first.labels, second.labels)
    assert (first.x.shape, first.labels.shape) == (SHAPE, SHAPE)
    assert -1 <= first.x.min() < 0 < first.x.max() <= 1
    labels = make_probe(thresholds, WARM_UP_SHAPE).labels
    assert min(np.bincount(labels.ravel()) / labels.size) > 0.01
    np.testing.assert_array_equal(first.labels, (first.x > 0).astype(np.uint8) + (first.x > 0.5))


def test_the_references_answer_is_computed_once(thresholds) -> None:
    make_probe(thresholds, SHAPE)

    def fails():
        raise AssertionError("the answer is stored")

    thresholds.build = fails
    make_probe(thresholds, SHAPE)
    with pytest.raises(AssertionError, match="the answer is stored"):
        make_probe(thresholds, (48, 64, 80))


def test_a_network_of_several_channels_sees_the_probe_in_each(thresholds) -> None:
    two = SimpleNamespace(**vars(thresholds))
    two.config = SimpleNamespace(in_channels=2)
    assert make_probe(two, SHAPE).x.shape == (2, *SHAPE)


def test_parity_is_the_share_of_equal_labels_and_the_worst_structure(thresholds) -> None:
    probe = make_probe(thresholds, SHAPE)
    same = compare(Failing("openvino", good), probe)
    assert (same.agreement, same.worst_dice) == (1, 1)
    parity = compare(Failing("openvino", disagreeing), probe)
    assert parity.agreement == pytest.approx(0.99, abs=1e-4)
    small = compare(Failing("openvino", losing_half_of_2), probe)
    twos = int((probe.labels == 2).sum())
    assert (small.worst_structure, small.worst_dice) == (
        2,
        pytest.approx(2 * (twos // 2) / (twos + twos // 2), abs=1e-3),
    )


@pytest.mark.parametrize("spoil", [nan, logits_for_confidence])
def test_an_output_that_is_no_probability_is_refused(thresholds, spoil) -> None:
    with pytest.raises(EngineError, match=r"^openvino: on the probe volume its output is not finite"):
        compare(Failing("openvino", spoil), make_probe(thresholds, SHAPE))


def test_an_output_of_another_shape_is_refused(thresholds) -> None:
    engine = Failing("openvino", lambda labels, confidence: (labels[1:], confidence[1:]))
    with pytest.raises(EngineError, match=r"^openvino: labels uint8 \(47, 64, 64\) for a window"):
        compare(engine, make_probe(thresholds, SHAPE))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (nan, "openvino: on the probe volume its output is not finite"),
        (disagreeing, "openvino in bf16 on cpu: labels as torch in fp32 on 99.00% of the probe volume, not 99.50%"),
        (crashing, "openvino: an exception of its own"),
    ],
)
def test_a_refused_engine_makes_way_for_the_next_and_is_named(thresholds, engines, spoil, reason, caplog) -> None:
    made = engines(openvino=spoil, onnxruntime=good)
    segmenter = Segmenter(thresholds, device="cpu")
    assert segmenter.engine is made["onnxruntime"]
    assert made["openvino"].closed
    described = segmenter.describe()
    assert (described["engine"], described["agreement"]) == ("onnxruntime", "100.000%")
    assert described["refused"].startswith(reason)
    assert any(line.startswith(f"engine refused: {reason}") for line in caplog.messages)


def test_an_engine_that_loses_an_organ_is_refused_however_few_voxels_that_is(thresholds, engines) -> None:
    made = engines(openvino=losing_half_of_2)
    segmenter = Segmenter(thresholds, device="cpu", min_agreement=0.01)
    assert segmenter.engine.name == "torch"
    assert made["openvino"].closed
    assert segmenter.describe()["refused"].startswith(
        "openvino in bf16 on cpu: structure 2 of the probe volume with Dice 0.6"
    )


def test_a_named_engine_that_is_refused_makes_way_too(thresholds, engines) -> None:
    engines(onnxruntime=nan)
    segmenter = Segmenter(thresholds, engine="onnxruntime", device="cpu")
    assert (segmenter.engine.name, segmenter.engine.precision) == ("torch", "fp32")


def test_a_lower_bar_lets_it_pass(thresholds, engines) -> None:
    made = engines(openvino=disagreeing)
    segmenter = Segmenter(thresholds, device="cpu", min_agreement=0.98)
    assert segmenter.engine is made["openvino"]
    assert float(segmenter.describe()["agreement"].rstrip("%")) == pytest.approx(99, abs=0.01)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_bar_that_is_no_share_is_refused(thresholds, value: float) -> None:
    with pytest.raises(ValueError, match=r"min_agreement .*: expected 0 to 1"):
        Segmenter(thresholds, min_agreement=value)


def test_a_gpu_without_memory_ends_at_torch_on_the_cpu_not_at_a_dead_node(thresholds, engines) -> None:
    engines(tensorrt=out_of_memory)
    segmenter = Segmenter(thresholds, engine="tensorrt", device="cuda")
    assert (segmenter.engine.name, segmenter.engine.device) == ("torch", "cpu")
    assert "out of memory" in segmenter.describe()["refused"]
    labels, _ = segmenter.predict(np.full((40, 40, 40), 0.7, np.float32))
    assert labels.min() == 2


def test_an_engine_that_fails_at_work_is_replaced_and_the_volume_is_segmented(thresholds, engines) -> None:
    made = engines(openvino=good, onnxruntime=good)
    segmenter = Segmenter(thresholds, device="cpu")
    assert segmenter.engine is made["openvino"]
    made["openvino"]._spoil = nan
    labels, _ = segmenter.predict(np.full((40, 40, 40), 0.7, np.float32))
    assert labels.min() == 2
    assert segmenter.engine is made["onnxruntime"]
    assert segmenter.describe()["refused"] == "openvino: the network's output is not finite"


def test_every_engine_of_ours_stands_in_the_order(thresholds, monkeypatch) -> None:
    asked, real = [], choice.make_engine

    def make(name: str, checkpoint, **options):
        asked.append((name, options["device"], options["precision"]))
        if (name, options["device"]) == ("torch", "cpu"):
            return real(name, checkpoint, **options)
        raise EngineError(f"{name}: not here")

    monkeypatch.setattr(choice, "make_engine", make)
    Segmenter(thresholds, device="cuda:1", precision="fp16")
    assert asked == [
        ("tensorrt", "cuda:1", "fp16"), ("torch", "cuda:1", "fp16"), ("onnxruntime", "cuda:1", "fp16"),
        ("openvino", "cpu", "fp16"), ("onnxruntime", "cpu", "fp16"), ("torch", "cpu", "auto"),
    ]  # fmt: skip
    assert {name for name, *_ in asked} == set(ENGINES)
