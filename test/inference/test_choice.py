import pytest
import torch

from threedme_ros.inference import engines
from threedme_ros.inference.choice import MOST_HANGS, open_engine
from threedme_ros.inference.engines import EngineError
from threedme_ros.inference.segmenter import Segmenter


@pytest.fixture
def opened(monkeypatch) -> list[tuple[str, str]]:
    """Of the engines only torch is installed here."""
    missing = lambda name: [] if name == "torch" else [name]  # noqa: E731
    monkeypatch.setattr("threedme_ros.inference.engines.missing_packages", missing)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return []


def order(thresholds, opened, engine: str, hung: dict) -> list[str]:
    limits = {"device": "auto", "precision": "auto", "threads": 0, "min_agreement": 0.0, "cache_dir": None}
    limits |= {"probe_shape": (48, 48, 48), "window_voxels": 64**3}
    chain = open_engine(
        thresholds, engine, **limits, hung=hung, opened=lambda name, device: opened.append((name, device))
    )
    chain.close()
    return [name for name, _ in opened]


def test_every_engine_that_is_made_is_told_with_its_device(thresholds, opened) -> None:
    assert order(thresholds, opened, "auto", {}) == ["openvino", "onnxruntime", "torch"]
    assert opened[-1] == ("torch", "cpu")


def test_one_that_hung_is_tried_last_even_if_it_is_asked_for(thresholds, opened) -> None:
    assert order(thresholds, opened, "auto", {("openvino", "cpu"): 1}) == ["onnxruntime", "torch"]
    opened.clear()
    segmenter = Segmenter(
        thresholds, engine="openvino", hung={("openvino", "cpu"): 1}, opened=lambda *pair: opened.append(pair)
    )
    assert [name for name, _ in opened] == ["onnxruntime", "torch"]
    assert (segmenter.engine.name, segmenter.building) == ("torch", False)


def test_one_that_hung_too_often_is_not_tried_at_all(thresholds, opened) -> None:
    hung = {("torch", "cpu"): MOST_HANGS}
    with pytest.raises(EngineError, match=r"no engine is usable: openvino: .* not installed"):
        order(thresholds, opened, "auto", hung)
    assert [name for name, _ in opened] == ["openvino", "onnxruntime"]
    everyone = {(name, "cpu"): MOST_HANGS for name in ("openvino", "onnxruntime", "torch")}
    with pytest.raises(EngineError, match="no engine is left: openvino, onnxruntime, torch hung 2 times each"):
        order(thresholds, opened, "auto", everyone)


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), MemoryError(), RuntimeError("can't allocate")])
def test_what_runs_out_while_an_engine_is_made_costs_that_engine_only(thresholds, monkeypatch, error) -> None:
    def make_engine(name, checkpoint, **options):
        if name != "torch":
            raise error
        return engines.make_engine(name, checkpoint, **options)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("threedme_ros.inference.choice.make_engine", make_engine)
    assert Segmenter(thresholds, engine="auto").engine.name == "torch"
