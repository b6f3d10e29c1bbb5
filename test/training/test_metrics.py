"""Scores against hand-worked values and MONAI."""

import math

import numpy as np
import pytest
import torch
from monai.metrics import DiceMetric, HausdorffDistanceMetric, SurfaceDiceMetric

from threedme_ros.training.metrics import (
    dice_scores,
    hausdorff95_mm,
    mean_dice,
    normalised_surface_dice,
    surface_distances,
)


def test_dice_by_hand():
    truth = np.array([0, 1, 1, 1, 2, 0])
    predicted = np.array([0, 1, 1, 0, 0, 3])
    scores = dice_scores(predicted, truth, 5)
    np.testing.assert_allclose(scores, [2 * 1 / 5, 2 * 2 / 5, 0, 0, np.nan])


def test_mean_counts_a_missed_structure_and_not_an_invented_one():
    assert mean_dice(np.array([1, 1, 0, 3]), np.array([1, 1, 2, 0]), 4) == pytest.approx(0.5)
    assert math.isnan(mean_dice(np.array([0, 1]), np.array([0, 0]), 4))


def test_dice_equals_monai():
    rng = np.random.default_rng(0)
    predicted, truth = rng.integers(0, 4, (2, 6, 7, 8))
    hot = [torch.nn.functional.one_hot(torch.from_numpy(v), 4).movedim(-1, 0)[None] for v in (predicted, truth)]
    np.testing.assert_allclose(dice_scores(predicted, truth, 4), DiceMetric()(*hot)[0].numpy(), rtol=1e-6)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="label 7: expected 0 to 3"):
        dice_scores(np.array([7]), np.array([0]), 4)
    with pytest.raises(ValueError, match="expected the same"):
        dice_scores(np.zeros((1, 2), int), np.zeros((2, 1), int), 4)


@pytest.fixture
def boxes():
    truth = np.zeros((20, 20, 20), bool)
    truth[4:12, 5:15, 6:14] = True
    return np.roll(truth, 2, axis=0), truth


def test_surface_figures_of_a_shifted_box(boxes):
    # shifted two voxels of 3 mm: no surface voxel is further than 6 mm, and the end faces are exactly that far
    spacing = (3.0, 1.0, 2.0)
    there, back = surface_distances(*boxes, spacing)
    assert there.max() == back.max() == 6
    assert hausdorff95_mm(*boxes, spacing) == 6
    assert normalised_surface_dice(*boxes, spacing, 6.0) == 1
    assert normalised_surface_dice(*boxes, spacing, 5.9) < 1


def test_surface_figures_equal_monai(boxes):
    spacing, tensors = (3.0, 1.0, 2.0), [torch.from_numpy(b)[None, None].float() for b in boxes]
    hd95 = HausdorffDistanceMetric(percentile=95)(*tensors, spacing=spacing).item()
    assert hausdorff95_mm(*boxes, spacing) == pytest.approx(hd95)
    nsd = SurfaceDiceMetric([2.0], include_background=True)(*tensors, spacing=spacing).item()
    assert normalised_surface_dice(*boxes, spacing, 2.0) == pytest.approx(nsd, abs=1e-6)


def test_empty_masks():
    empty, full = np.zeros((3, 3, 3), bool), np.ones((3, 3, 3), bool)
    assert math.isnan(normalised_surface_dice(empty, empty, (1, 1, 1), 1))
    assert normalised_surface_dice(empty, full, (1, 1, 1), 1) == 0
    assert math.isnan(hausdorff95_mm(empty, full, (1, 1, 1)))
