import json
from dataclasses import replace

import numpy as np
import pytest

from threedme_ros.inference.engines import EngineError
from threedme_ros.inference.engines.chain import Candidate, EngineChain
from threedme_ros.inference.incremental import IncrementalSegmenter, UpdatePolicy
from threedme_ros.inference.made_by import MAX_JSON_BYTES, NOBODY, MadeBy, MadeByError
from threedme_ros.inference.segmenter import Segmenter
from threedme_ros.volume import Volume

FULL = MadeBy("0123456789abcdef", "openvino", "bf16", "cpu", 2, ("auto",), "full", ((0, 16), (16, 48), (0, 32)), 128**3)


def test_json_gives_it_back():
    assert MadeBy.from_json(FULL.to_json()) == FULL
    assert MadeBy.from_json(NOBODY.to_json()) == NOBODY


def test_keys_of_others_are_passed_over():
    assert MadeBy.from_json(json.dumps({**json.loads(FULL.to_json()), "stamp": {"sec": 3}})) == FULL


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", '{"box": 3}', "[" * 4000, " " * MAX_JSON_BYTES + FULL.to_json(), '{"box": [[1]]}']
)
def test_any_other_text_is_refused(text):
    with pytest.raises(MadeByError, match="expected what made a result"):
        MadeBy.from_json(text)


@pytest.mark.parametrize("box", ([[0, 16]] * 2, [[0, 16]] * 4, [[16, 0]] * 3, [[-1, 16]] * 3, [[0, 10**30]] * 3 + [0]))
def test_a_box_that_is_none_is_refused(box):
    with pytest.raises(MadeByError, match="expected what made a result"):
        MadeBy.from_json(json.dumps({**json.loads(FULL.to_json()), "box": box}))


@pytest.mark.parametrize("name", ("threads", "window_voxels"))
def test_a_number_past_all_numbers_is_refused(name):
    with pytest.raises(MadeByError, match="expected what made a result"):
        MadeBy.from_json(json.dumps({**json.loads(FULL.to_json()), name: float("inf")}))


def test_description_fits_a_nifti_header_with_the_longest_names():
    longest = MadeBy("0123456789abcdef", "onnxruntime", "fp32", "cuda:0")
    text = "checkpoint=0123456789abcdef engine=onnxruntime precision=fp32 device=cuda:0"
    assert longest.description == text
    assert len(text) <= 79
    assert NOBODY.description == ""


class Named:
    """Labels 1 where a voxel is bright; raises from its ``lasts``-th run on. Another label than its successor's."""

    device = "cpu"

    def __init__(self, name: str, precision: str, label: int, lasts: int = 10**6) -> None:
        self.name, self.precision, self.label, self.lasts = name, precision, label, lasts

    def run(self, window):
        if not self.lasts:
            raise EngineError(f"{self.name}: broken")
        self.lasts -= 1
        return (window > 0).astype(np.uint8) * np.uint8(self.label), np.full(window.shape, 0.5, np.float32)

    def close(self) -> None: ...


def segmenter(checkpoint, first: Named) -> Segmenter:
    """On ``first``, and on another engine once that raises."""
    made = Segmenter(checkpoint, engine=first)
    candidates = [Candidate(lambda: first), Candidate(lambda: Named("second", "fp32", 2))]
    made._chain = EngineChain(candidates, gate=lambda *_: None, window_voxels=128**3, least_voxels=48**3)
    return made


def image(box_value: int | None = None) -> Volume:
    voxels = np.random.default_rng(0).integers(-400, 300, (96, 112, 96)).astype(np.int16)
    if box_value is not None:
        voxels[20:30, 20:30, 20:30] = box_value
    return Volume(voxels, np.diag([2.0, 2.0, 2.0, 1.0]), "patient")


def test_each_result_names_the_engine_that_made_it_when_the_engine_changes_between_two_volumes(thresholds):
    chained = segmenter(thresholds, Named("first", "bf16", 1, lasts=1))
    first, second = chained.segment(image()), chained.segment(image())
    assert first.labels.voxels.max() == 1 and second.labels.voxels.max() == 2
    told = ("full", ("auto",), None, 128**3)
    assert first.made_by == MadeBy(thresholds.hash, "first", "bf16", "cpu", 0, told[1], told[0], *told[2:])
    assert second.made_by == replace(first.made_by, engine="second", precision="fp32")


@pytest.mark.parametrize("lasts", [1, 2])
def test_an_engine_that_fails_half_way_through_an_update_leaves_no_mixture(thresholds, lasts):
    incremental = IncrementalSegmenter(
        segmenter(thresholds, Named("first", "bf16", 1, lasts)), UpdatePolicy(sizes=(64,), most=1.0)
    )
    incremental.segment(image())
    result = incremental.segment(image(250))
    assert (result.update, result.made_by.engine) == ("full", "second")
    assert set(np.unique(result.labels.voxels)) == {0, 2}
    assert incremental.segment(image(250)).update == "unchanged"


def test_following_takes_the_crop_and_the_tiles_of_the_other(thresholds):
    own = Segmenter(thresholds, engine=Named("first", "bf16", 1))
    chosen = own.segment(image()).made_by
    other = replace(chosen, box=((0, 96), (16, 112), (0, 96)), window_voxels=48**3)
    own.follow(other)
    followed = own.segment(image())
    assert followed.made_by == other
    assert not followed.labels.voxels[:, :16].any() and followed.labels.voxels[:, 16:].any()  # A is axis 1
    own.follow(None)
    assert own.segment(image()).made_by == chosen
