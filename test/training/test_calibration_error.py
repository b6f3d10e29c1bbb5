"""Calibration error: worked out by hand, over the voxels where the truth can tell."""

import numpy as np
import pytest

from threedme_ros.phantom import phantom
from threedme_ros.training.calibration_error import body_voxels, calibration_score, reliability


def test_the_error_of_two_bins_by_hand():
    # ten voxels at 0.95, nine right: off by 0.05; ten at 0.55, three right: off by 0.25
    confidence = np.repeat([0.95, 0.55], 10)
    correct = np.r_[np.ones(9), 0, np.ones(3), np.zeros(7)].astype(bool)
    found = reliability(confidence, correct)
    assert found.error == pytest.approx((10 * 0.05 + 10 * 0.25) / 20)
    assert found.accuracy == pytest.approx(0.6)


def test_certain_voxels_belong_to_the_last_bin():
    found = reliability(np.ones(4), np.array([True, True, True, False]))
    assert found.count[-1] == 4 and found.error == pytest.approx(0.25)


def test_parts_add_up_to_the_whole():
    rng = np.random.default_rng(0)
    confidence, correct = rng.random(1000), rng.random(1000) < 0.5
    parts = reliability(confidence[:300], correct[:300]) + reliability(confidence[300:], correct[300:])
    assert parts.error == pytest.approx(reliability(confidence, correct).error)


def test_no_voxel_is_no_figure():
    assert np.isnan(reliability(np.zeros(0), np.zeros(0, bool)).error)


def test_a_structure_that_the_truth_cannot_show_is_not_counted():
    #                  right  missed  background  unknown  outside the body
    predicted = np.array([1, 0, 0, 9, 1], np.uint8)
    truth = np.array([1, 1, 0, 0, 0], np.uint8)
    confidence = np.full(5, 255, np.uint8)
    body = np.array([True, True, True, True, False])
    found = calibration_score(predicted, confidence, truth, body, known=[1])
    assert found.body.count.sum() == 3 and found.body.error == pytest.approx(1 / 3)
    assert found.foreground.count.sum() == 2 and found.foreground.error == pytest.approx(1 / 2)


def test_uint8_confidence_is_a_share_of_255():
    zeros, ones = np.zeros(4, np.uint8), np.ones(4, bool)
    found = calibration_score(zeros, np.full(4, 204, np.uint8), zeros, ones, known=[1])
    assert found.body.confidence.sum() == pytest.approx(4 * 0.8, rel=1e-6)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SPR"])
def test_the_body_of_the_phantom_is_its_trunk(codes):
    image, _ = phantom((96, 80, 64), (4.0, 3.5, 6.0))
    trunk = image.voxels > -500
    turned, _ = image.reoriented(codes)
    expected, _ = image.with_voxels(trunk).reoriented(codes)
    body = body_voxels(turned)
    assert (body == expected.voxels).mean() > 0.99


def test_the_body_holds_its_gas_and_not_the_table():
    image, _ = phantom((96, 80, 16), (4.0, 3.5, 6.0))
    voxels = image.voxels.copy()
    voxels[44:52, 36:44, 4:12] = -900  # gas in the middle
    voxels[20:76, 2:4, :] = 100  # a table, well behind
    body = body_voxels(image.with_voxels(voxels))
    assert body[48, 40, 8] and not body[48, 3, 8]


def test_a_body_without_a_unit_stands_out_from_its_background():
    image, _ = phantom((96, 80, 16), (4.0, 3.5, 6.0))
    mr = image.with_voxels((image.voxels.astype(np.int32) + 1000).clip(0))
    body = body_voxels(mr)
    assert body[image.voxels > -500].mean() > 0.99
    assert body[image.voxels < -500].mean() < 0.1  # a voxel around it
