"""Corruptions of geometry: the truth goes where the image goes, in millimetres."""

import numpy as np
import pytest

from threedme_ros.phantom import phantom
from threedme_ros.training.calibration_error import body_voxels
from threedme_ros.training.robustness import geometry
from threedme_ros.training.robustness.labelled import Labelled


@pytest.fixture(scope="module")
def case():
    image, labels = phantom((96, 80, 64), (4.0, 3.5, 6.0))
    return Labelled(image, labels, image.with_voxels(body_voxels(image)))


def centre_mm(volume, label):
    return volume.grid.to_mm(np.argwhere(volume.voxels == label).mean(0)[None])[0]


def agrees(case, image_hu, label):
    """The image shows the organ's HU where the truth shows the organ."""
    inside = case.image.voxels[case.truth.voxels == label]
    return abs(float(np.median(inside)) - image_hu) < 25


@pytest.mark.parametrize(
    ("apply", "strength"),
    [(geometry.slice_thickness, 18.0), (geometry.spacing, 2.0), (geometry.roll, 20.0), (geometry.tilt, 20.0)],
)
def test_image_and_truth_move_together(case, anatomy, apply, strength):
    found = apply(case, strength)
    for name, level in {"liver": 110, "spleen": 130, "kidney_left": 170}.items():
        assert agrees(found, level, anatomy[name].id), name
    assert found.image.voxels.dtype == case.image.voxels.dtype and found.truth.voxels.dtype == np.uint8


def test_slices_get_thick_along_the_body_and_organs_stay(case, anatomy):
    found = geometry.slice_thickness(case, 12.0)
    assert found.image.shape == (96, 80, 32) and found.image.spacing_mm == pytest.approx((4, 3.5, 12))
    for name in ("liver", "urinary_bladder"):
        moved = centre_mm(found.truth, anatomy[name].id) - centre_mm(case.truth, anatomy[name].id)
        assert np.abs(moved).max() < 1.5
    mean = case.image.voxels.reshape(96, 80, 32, 2).mean(-1)
    np.testing.assert_allclose(found.image.voxels, mean, atol=0.51)


def test_slices_that_are_thick_already_stay(case):
    assert geometry.slice_thickness(case, 5.0).image.shape == case.image.shape


def test_means_of_boxes_that_cut_voxels():
    values = np.array([0.0, 3.0, 6.0], np.float32)
    np.testing.assert_allclose(geometry.box_means(values, 0, 2), [1.0, 5.0])  # (0 + 3/2) / 1.5 and (3/2 + 6) / 1.5
    assert geometry.box_means(values, 0, 3) is values


def test_truncation_drops_its_share_of_the_body_and_the_truth_outside(case):
    found = geometry.truncation(case, 40)
    kept = found.body.voxels.sum() / case.body.voxels.sum()
    assert kept == pytest.approx(0.6, abs=0.02)
    gone = case.body.voxels & ~found.body.voxels
    assert (found.image.voxels[gone] == case.image.voxels.min()).all() and not found.truth.voxels[gone].any()
    inside = found.body.voxels
    np.testing.assert_array_equal(found.image.voxels[inside], case.image.voxels[inside])
    rows, columns = np.nonzero(inside.any(2))
    height, width = np.ptp(columns) * 3.5, np.ptp(rows) * 4.0
    assert height == pytest.approx(width, abs=10) or height == pytest.approx(240, abs=8)  # a circle, or the whole depth


def test_a_slab_is_the_middle_and_lies_where_it_was(case):
    found = geometry.slab(case, 60.0)
    assert found.image.shape == (96, 80, 10)
    np.testing.assert_array_equal(found.image.voxels, case.image.voxels[:, :, 27:37])
    assert found.image.grid.to_mm(np.zeros((1, 3)))[0] == pytest.approx(
        case.image.grid.to_mm(np.array([[0, 0, 27]]))[0]
    )


def test_roll_turns_about_the_long_axis_by_the_angle(case, anatomy):
    label = anatomy["liver"].id
    middle = case.image.grid.to_mm((np.array([case.image.shape]) - 1) / 2)[0]
    before = centre_mm(case.truth, label) - middle
    after = centre_mm(geometry.roll(case, 30.0).truth, label) - middle
    turned = np.degrees(np.arctan2(after[1], after[0]) - np.arctan2(before[1], before[0]))
    assert turned == pytest.approx(30, abs=1.5)
    assert after[2] == pytest.approx(before[2], abs=1.5)


def test_tilt_leaves_left_and_right(case, anatomy):
    label = anatomy["liver"].id
    middle = case.image.grid.to_mm((np.array([case.image.shape]) - 1) / 2)[0]
    before = centre_mm(case.truth, label) - middle
    after = centre_mm(geometry.tilt(case, 20.0).truth, label) - middle
    turned = np.degrees(np.arctan2(after[2], after[1]) - np.arctan2(before[2], before[1]))
    assert turned == pytest.approx(20, abs=1.5)
    assert after[0] == pytest.approx(before[0], abs=2)


@pytest.mark.parametrize("codes", ["LPS", "LAI", "SPR"])
def test_storage_order_keeps_every_voxel_at_its_place(case, codes):
    found = geometry.storage_order(case, codes)
    assert found.image.grid.orientation == codes
    for before, after in ((case.image, found.image), (case.truth, found.truth)):
        back, _ = after.reoriented("RAS")
        np.testing.assert_array_equal(back.voxels, before.voxels)
        np.testing.assert_allclose(back.affine, before.affine, atol=1e-9)


@pytest.mark.parametrize("codes", ["LPS", "SPR"])
def test_the_answer_does_not_depend_on_the_storage_order(case, codes):
    """Corrupted in another storage order, the body is the same in space."""
    turned = geometry.storage_order(case, codes)
    for apply, strength in ((geometry.truncation, 25), (geometry.slice_thickness, 12.0), (geometry.slab, 60.0)):
        one, other = apply(case, strength), apply(turned, strength)
        np.testing.assert_array_equal(one.truth.reoriented("RAS")[0].voxels, other.truth.reoriented("RAS")[0].voxels)
