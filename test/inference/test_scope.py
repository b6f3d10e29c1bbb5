"""The scope score: figures worked out by hand, a model that comes back from JSON, a verdict in every segmentation."""

import json

import numpy as np
import pytest

from threedme_ros.inference.incremental import IncrementalSegmenter
from threedme_ros.inference.scope import FEATURES, UNKNOWN_PLACE, Arrangement, Scope, ScopeModel, measure
from threedme_ros.inference.segmenter import Segmenter
from threedme_ros.model.weights_file import CheckpointError
from threedme_ros.volume import Volume

SPACING = (3.0, 3.0, 3.0)
NOWHERE = Arrangement(np.zeros((0, 2), np.intp), np.zeros((0, 3)), np.ones((0, 3)))


def figures(x, labels, confidence, arrangement=NOWHERE):
    return dict(zip(FEATURES, measure(x, labels, confidence, SPACING, arrangement), strict=True))


@pytest.fixture
def half_labelled():
    """40^3 voxels: air, a body of 20 x 32 x 32 of which half is structure 7, surely so."""
    x = np.full((40, 40, 40), -1, np.float32)
    x[10:30, 4:36, 4:36] = 0.25
    labels = np.zeros(x.shape, np.uint8)
    labels[10:30, 4:36, 4:20] = 7
    confidence = np.full(x.shape, 0.6, np.float32)
    confidence[labels > 0] = 0.9
    return x, labels, confidence


def test_figures_by_hand(half_labelled):
    found = figures(*half_labelled)
    assert found["confidence of structures"] == pytest.approx(0.9)
    assert found["confidence of the body"] == pytest.approx(0.75)
    assert found["unsure structures"] == 0
    assert found["labelled share"] == pytest.approx(0.5)
    assert found["structures"] == 1 and found["misplaced"] == UNKNOWN_PLACE
    assert found["mean intensity"] == pytest.approx(0.25) and found["spread of intensity"] == pytest.approx(0)
    assert found["roughness"] == 0
    assert found["cross-section"] == pytest.approx(np.log(32 * 32 * 9))
    assert found["extent"] == pytest.approx(np.log(60))
    # every second voxel: 10 x 16 x 8 labelled; pairs inside: 9 16 8 + 10 15 8 + 10 16 7; at its faces: 2 16 8, 2 10 8,
    # 2 10 16 but for none at the array's edge
    inside, faces = 9 * 16 * 8 + 10 * 15 * 8 + 10 * 16 * 7, 2 * 16 * 8 + 2 * 10 * 8 + 2 * 10 * 16
    assert found["coherence"] == pytest.approx(inside / (inside + faces))


def test_speckle_has_no_coherence_and_noise_is_rough():
    rng = np.random.default_rng(0)
    x = np.clip(0.2 * rng.standard_normal((40, 40, 40)), -0.8, 1).astype(np.float32)
    labels = rng.integers(1, 17, x.shape).astype(np.uint8)
    found = figures(x, labels, np.full(x.shape, 0.3, np.float32))
    assert found["coherence"] == pytest.approx(1 / 16, abs=0.01)
    assert found["roughness"] == pytest.approx(2 / np.sqrt(np.pi), rel=0.03)
    assert found["unsure structures"] == 1


def test_air_alone_has_figures():
    nothing = np.full((20, 20, 20), -1, np.float32)
    found = figures(nothing, np.zeros(nothing.shape, np.uint8), np.ones(nothing.shape, np.float32))
    assert all(np.isfinite(list(found.values()))) and found["structures"] == 0


def test_a_single_slice_has_figures():
    x = np.zeros((1, 40, 40), np.float32)
    found = figures(x, np.ones(x.shape, np.uint8), np.ones(x.shape, np.float32))
    assert all(np.isfinite(list(found.values())))


def test_misplaced_counts_deviations_from_the_usual_place():
    table = Arrangement(np.array([(1, 2)]), np.array([(30.0, 0, 0)]), np.array([(10.0, 10, 10)]))
    usual = {1: np.zeros(3), 2: np.array([30.0, 0, 0])}
    assert table.misplaced(usual) == 0
    assert table.misplaced(usual | {2: np.array([45.0, 0, 0])}) == pytest.approx(1.5 / 3)
    assert table.misplaced(usual | {2: np.array([-900.0, 0, 0])}) == pytest.approx(3 / 3)  # at most 3 an axis
    assert table.misplaced({1: np.zeros(3)}) == UNKNOWN_PLACE


def linear(threshold=0.0, **weights):
    """A model that scores ``weights`` x figure, with nothing standardised."""
    weight = np.array([weights.get(name.replace(" ", "_"), 0.0) for name in FEATURES])
    table = Arrangement(np.array([(1, 2)]), np.array([(30.0, 1, 2)]), np.array([(10.0, 11, 12)]))
    return ScopeModel(np.zeros(len(FEATURES)), np.ones(len(FEATURES)), weight, 0.0, threshold, table)


def test_a_model_comes_back_from_json(half_labelled):
    model = linear(0.7, labelled_share=2.0, coherence=1.0)
    back = ScopeModel.from_dict(json.loads(json.dumps(model.to_dict())))
    before, after = (m.judge(*half_labelled, SPACING) for m in (model, back))
    assert after == before == Scope(pytest.approx(2 * 0.5 + figures(*half_labelled)["coherence"]), 0.7)


def test_a_model_of_other_figures_is_refused():
    stored = linear().to_dict()
    stored["features"].pop("coherence")
    with pytest.raises(ValueError, match=r"expected .*coherence"):
        ScopeModel.from_dict(stored)
    short = linear().to_dict()
    short["arrangement"]["middle_mm"] = []
    with pytest.raises(ValueError, match=r"scope middle_mm \[\]: expected \(1, 3\) numbers"):
        ScopeModel.from_dict(short)
    with pytest.raises(ValueError, match="scope model without 'threshold'"):
        ScopeModel.from_dict({k: v for k, v in linear().to_dict().items() if k != "threshold"})


NAN, VAST = float("nan"), 10**400


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"features": list(FEATURES)}, "expected numbers for"),
        ({"features": {key: [1, 2] for key in FEATURES}}, r"expected \(12, 3\) numbers"),
        ({"features": {key: [1, 2, "x"] for key in FEATURES}}, "could not convert"),
        ({"features": {key: [VAST, 1, 2] for key in FEATURES}}, "too large"),
        ({"features": {key: [1, 0, 2] for key in FEATURES}}, "deviation or spread 0: expected at least 1e-09"),
        ({"features": {key: [1, 1e-12, 2] for key in FEATURES}}, "deviation or spread 1e-12: expected at"),
        ({"features": 5}, "scope model without"),
        ({"threshold": NAN}, r"scope bias and threshold \[0.0, nan\]: expected \(2,\) numbers within 1e\+09"),
        ({"bias": VAST}, "scope bias and threshold: .*too large"),
        ({"arrangement": None}, "scope model without"),
        ({"arrangement": {"pairs": [[10**30, 1]], "middle_mm": [[1, 2, 3]], "spread_mm": [[1, 2, 3]]}}, "scope pairs"),
        (
            {"arrangement": {"pairs": [[2, 1]], "middle_mm": [[1, 2, 3]], "spread_mm": [[1, 2, 3]]}},
            r"pairs \[\[2.0, 1.0",
        ),
        (
            {"arrangement": {"pairs": [[1, 2]], "middle_mm": [[1, 2, 3]], "spread_mm": [[1, 0, 3]]}},
            "deviation or spread 0: expected",
        ),
        ({"arrangement": {"pairs": [[1, 2]], "middle_mm": [[1, 2, NAN]], "spread_mm": [[1, 2, 3]]}}, "middle_mm"),
    ],
    ids=range(14),
)
def test_numbers_that_give_no_verdict_are_refused(change, reason):
    with pytest.raises(CheckpointError, match=reason):
        ScopeModel.from_dict(linear().to_dict() | change)


def test_a_checkpoint_with_such_a_scope_or_calibration_makes_no_segmenter(thresholds):
    thresholds.scope = linear().to_dict() | {"threshold": NAN}
    with pytest.raises(CheckpointError, match="threshold"):
        Segmenter(thresholds, engine="torch")
    thresholds.scope, thresholds.calibration = None, {"lines": [1]}
    with pytest.raises(CheckpointError, match="confidence map"):
        Segmenter(thresholds, engine="torch")


def test_the_verdict_is_a_warning_with_score_and_threshold():
    assert Scope(1.0, 0.5).inside and Scope(1.0, 0.5).warnings == ()
    (warning,) = Scope(-2.34, 0.5).warnings
    assert "out of scope: score -2.3, expected at least 0.5" in warning


@pytest.mark.parametrize(("threshold", "inside"), [(0.0, True), (99.0, False)])
def test_every_segmentation_carries_the_verdict(thresholds, threshold, inside):
    thresholds.scope = linear(threshold, structures=1.0).to_dict()
    voxels = np.full((40, 40, 40), -200.0, np.float32)
    voxels[10:30, 10:30, 10:30] = 150
    segmenter = Segmenter(thresholds, engine="torch", precision="fp32")
    found = segmenter.segment(Volume(voxels, np.diag([2.0, 2, 2, 1])))
    assert found.scope.score == pytest.approx(1.0) and found.scope.inside is inside
    assert any("out of scope" in w for w in found.warnings) is not inside


def test_an_update_keeps_the_verdict_of_its_volume(thresholds, monkeypatch):
    thresholds.scope = linear(structures=1.0).to_dict()
    voxels = np.full((40, 40, 40), -200.0, np.float32)
    voxels[10:30, 10:30, 10:30] = 150
    volume = Volume(voxels, np.diag([2.0, 2, 2, 1]))
    segmenter = IncrementalSegmenter(Segmenter(thresholds, engine="torch", precision="fp32"))
    first = segmenter.segment(volume)
    monkeypatch.setattr(ScopeModel, "judge", lambda *arguments: pytest.fail("judged again"))
    again = segmenter.segment(volume)
    assert (first.update, again.update) == ("full", "unchanged")
    assert again.scope == first.scope and again.scope.score == pytest.approx(1.0)


def test_a_checkpoint_without_a_model_gives_no_verdict(thresholds):
    voxels = np.full((40, 40, 40), -200.0, np.float32)
    voxels[10:30, 10:30, 10:30] = 150
    found = Segmenter(thresholds, engine="torch", precision="fp32").segment(Volume(voxels, np.diag([2.0, 2, 2, 1])))
    assert found.scope is None and found.warnings == ()
