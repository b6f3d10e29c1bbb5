"""Fitting the scope model: thresholds and arrangements by hand, and a fit of stand-in answers that separates."""

import numpy as np
import pytest
import torch

from threedme_ros.inference.scope import ScopeModel
from threedme_ros.model.checkpoint import load_checkpoint, save_checkpoint
from threedme_ros.model.config import ModelConfig, Preprocessing
from threedme_ros.model.threedme import ThreeDME
from threedme_ros.phantom import phantom
from threedme_ros.training.case import training_case
from threedme_ros.training.errors import TrainingError
from threedme_ros.training.scope_data import OTHERS, bodies, head, others, shuffled
from threedme_ros.training.scope_fit import BODY, Answer, ScopeConfig, arrange, best_threshold, fit, fit_scope


@pytest.fixture(scope="module")
def case(anatomy):
    image, labels = phantom(anatomy=anatomy)
    return training_case("phantom", image, labels, labels, Preprocessing(spacing_mm=(6.0, 6.0, 6.0)))


def test_the_threshold_lies_in_the_middle_of_the_gap():
    assert best_threshold(np.array([3.0, 4, 5]), np.array([-2.0, -1, 1])) == 2.0
    # at 1.5 one of three bodies is lost; anywhere below, two of three others come in
    assert best_threshold(np.array([1.0, 4, 5]), np.array([-2.0, 1.2, 2.0])) == 3.0


def test_an_arrangement_is_medians_and_robust_deviations():
    seen = [{1: np.zeros(3), 2: np.array([40.0 + i, 0, -8])} for i in (-10, -10, 0, 0, 0, 0, 10, 10, 900)]
    seen.append({3: np.zeros(3), 1: np.zeros(3)})  # seen together once: not enough
    table = arrange(seen)
    assert table.pairs.tolist() == [[1, 2]]
    np.testing.assert_allclose(table.middle, [[40, 0, -8]])
    np.testing.assert_allclose(table.spread, [[14.826, 6, 6]], atol=1e-3)


def stand_in(kind, number):
    """Bodies: two coherent organs in a large cross-section, surely so. Others: specks in something small."""
    rng = np.random.default_rng((len(kind), number))
    x = np.full((30, 40, 40), -1, np.float32)
    labels = np.zeros(x.shape, np.uint8)
    if kind == BODY:
        x[:, 2:38, 2:38] = 0.2
        labels[4:20, 6 + number % 3 : 20, 6:18], labels[6:24, 20:34, 22:34] = 1, 2
        confidence = rng.uniform(0.85, 0.95)
    else:
        x[:, 12:28, 12:28] = rng.normal(0, 0.3, (30, 16, 16)).clip(-0.8, 1)
        labels[:, 12:28, 12:28] = rng.integers(0, 3, (30, 16, 16))
        confidence = rng.uniform(0.4, 0.7)
    return Answer(kind, x, labels, np.full(x.shape, confidence, np.float32))


def test_what_differs_is_told_apart_and_reported():
    answers = [stand_in(kind, n) for n in range(12) for kind in (BODY, "noise", "head")]
    model, report = fit(answers, (3.0, 3.0, 3.0))
    assert report["flagged"] == {BODY: [0, 12], "head": [12, 12], "noise": [12, 12]}
    assert report["flagged_unseen"] == {"head": [12, 12], "noise": [12, 12]}
    for kind, inside in ((BODY, True), ("limb", False)):
        new = stand_in(kind, 77)
        assert model.judge(new.x, new.labels, new.confidence, (3.0, 3.0, 3.0)).inside is inside
    assert model.arrangement.pairs.tolist() == [[1, 2]]


def test_every_kind_is_an_image_in_range_and_the_same_again(case):
    first, again = (list(others([case], 5, len(OTHERS))) for _ in range(2))
    assert [kind for kind, _ in first] == list(OTHERS)
    for (_, x), (_, same) in zip(first, again, strict=True):
        np.testing.assert_array_equal(x, same)
        assert x.dtype == np.float32 and x.min() >= -1 and x.max() <= 1 and x.std() > 0


def test_a_head_is_a_shell_of_bone_around_a_brain():
    x = head(np.random.default_rng(2))
    profile = x[:, x.shape[1] // 2, x.shape[2] // 2]
    assert (x <= -0.9).mean() > 0.2  # air around it
    assert 0 < (profile > 0.6).sum() < len(profile) / 2 or (profile < -0.5).any()  # bone, bright in CT and dark in MR


def test_a_shuffled_body_keeps_its_voxels():
    x = np.random.default_rng(0).normal(size=(24, 48, 48)).astype(np.float32)
    mixed = shuffled(x, np.random.default_rng(1))
    np.testing.assert_allclose(np.sort(mixed.ravel()), np.sort(x.ravel()))
    assert (mixed != x).mean() > 0.5


def test_bodies_are_cut_to_what_was_seen(case):
    for x in bodies([case], [1.0], 3, 4):
        assert x.ndim == 3 and x.flags.c_contiguous
        assert all((x.max(tuple({0, 1, 2} - {axis})) > -1)[[0, -1]].all() for axis in range(3))


def test_a_checkpoint_learns_its_scope_and_keeps_its_calibration(case, anatomy, tmp_path):
    from threedme_ros.model.checkpoint import add_to_checkpoint

    torch.manual_seed(0)
    config = ModelConfig(
        "small", anatomy.num_classes, channels=(8, 8, 16), vit_dim=24, vit_depth=1, vit_heads=2, plane_heads=2
    )
    path = tmp_path / "net.safetensors"
    save_checkpoint(path, ThreeDME(config), anatomy, Preprocessing(), {})
    add_to_checkpoint(path, {"calibration": {"temperature": 1.5}})
    done = []
    stored = fit_scope(path, [case], anatomy, ScopeConfig(inputs=12, trunks=0), lambda *n: done.append(n))
    checkpoint = load_checkpoint(path)
    assert checkpoint.scope == stored and checkpoint.calibration == {"temperature": 1.5}
    assert ScopeModel.from_dict(stored).threshold == stored["threshold"]
    assert done[-1] == (24, 24) and stored["fitted_on"]["inputs"] == 12
    assert sum(of for _, of in stored["fitted_on"]["flagged"].values()) == 24


def test_too_few_inputs_are_refused():
    with pytest.raises(TrainingError, match="expected at least 12 inputs"):
        ScopeConfig(inputs=5)
