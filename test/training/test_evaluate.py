"""Scores of label volumes: only what the ground truth can show, and nothing bad left out."""

from dataclasses import replace

import numpy as np
import pytest

from threedme_ros.training.evaluate import CaseScore, mean_over_truth, score_labels, table
from threedme_ros.volume import Volume

AFFINE = np.diag([10.0, 10.0, 10.0, 1.0])  # a voxel is 1 ml


def volume(values):
    return Volume(np.array(values, np.uint8).reshape(2, 3, 1), AFFINE)


def test_structures_are_scored_by_name_and_missed_ones_count(anatomy):
    spleen, liver, aorta = (anatomy[n].id for n in ("spleen", "liver", "aorta"))
    truth = volume([spleen, spleen, liver, 0, 0, 0])
    predicted = volume([spleen, spleen, 0, aorta, aorta, 0])
    scores = score_labels(predicted, truth, anatomy, ["spleen", "liver", "aorta", "stomach"], surfaces=False)
    assert [(s.name, s.truth_ml, s.predicted_ml, s.dice) for s in scores] == [
        ("spleen", pytest.approx(2), pytest.approx(2), 1.0),
        ("liver", pytest.approx(1), 0, 0.0),
        ("aorta", 0, pytest.approx(2), 0.0),
    ]
    assert mean_over_truth(scores) == pytest.approx(0.5)
    case = CaseScore("X", "evaluation", "a test", 0.5, 1.0, scores, (), 0.04, 0.2, 3.14, -0.3)
    text = table([case])
    assert "aorta" in text and "not in the truth" in text and "mean Dice 0.500" in text
    assert "calibration error 0.040, of structures 0.200; scope 3.1 (from -0.3)" in text
    assert "no scope score" in table([replace(case, scope=None)])


def test_unknown_structures_are_not_held_against_the_prediction(anatomy):
    truth = volume([anatomy["aorta"].id, 0, 0, 0, 0, 0])
    predicted = volume([anatomy["aorta"].id, anatomy["liver"].id, 0, 0, 0, 0])
    (score,) = score_labels(predicted, truth, anatomy, ["aorta"])
    assert score.dice == 1 and score.surface_dice == 1 and score.hd95_mm == 0


def test_another_grid_is_refused(anatomy):
    moved = Volume(np.zeros((2, 3, 1), np.uint8), AFFINE @ np.diag([1, 1, -1, 1]))
    with pytest.raises(ValueError, match="expected one grid"):
        score_labels(volume([0] * 6), Volume(moved.voxels, np.diag([9.0, 10, 10, 1])), anatomy, ["aorta"])
