"""Corruptions of the image: in named units, with the anatomy left where it is."""

import numpy as np
import pytest

from threedme_ros.training.robustness import intensity
from threedme_ros.training.robustness.labelled import Labelled, hu
from threedme_ros.volume import Volume, VolumeError


def case_of(voxels, spacing=(2.0, 3.0, 4.0)):
    image = Volume(voxels, np.diag([*spacing, 1.0]))
    rest = np.zeros(image.shape, np.uint8)
    return Labelled(image, image.with_voxels(rest), image.with_voxels(rest > 0))


@pytest.fixture
def flat():
    """Water with a layer of air and one of bone: a CT."""
    voxels = np.zeros((24, 24, 24), np.int16)
    voxels[:4], voxels[-1] = -1000, 500
    return case_of(voxels)


def test_noise_has_the_deviation_asked_for_and_depends_on_the_seed_alone(flat):
    noisy = intensity.noise(flat, 40, seed=3).image.voxels
    assert (noisy[4:-1].astype(float)).std() == pytest.approx(40, rel=0.03)
    assert abs(noisy[4:-1].mean()) < 2
    np.testing.assert_array_equal(noisy, intensity.noise(flat, 40, seed=3).image.voxels)
    assert (noisy != intensity.noise(flat, 40, seed=4).image.voxels).any()


@pytest.mark.parametrize(
    ("apply", "strength"),
    [(intensity.noise, 40), (intensity.blur, 6), (intensity.shift, 50), (intensity.gain, 30), (intensity.streaks, 100)],
)
def test_nothing_but_the_image_changes(flat, apply, strength):
    before = flat.image.voxels.copy()
    found = apply(flat, strength)
    np.testing.assert_array_equal(flat.image.voxels, before)
    assert found.truth is flat.truth and found.body is flat.body
    assert found.image.voxels.dtype == np.int16 and found.image.grid.matches(flat.image.grid, 0)
    assert (found.image.voxels != before).any()


def test_blur_of_a_point_is_half_as_high_at_half_its_width():
    voxels = np.zeros((41, 41, 41), np.float32)
    voxels[20, 20, 20] = 1e6
    voxels[0, 0, 0] = -1000
    blurred = intensity.blur(case_of(voxels), 12).image.voxels
    peak = blurred[20, 20, 20]
    assert blurred[23, 20, 20] / peak == pytest.approx(0.5, rel=0.02)  # 3 voxels of 2 mm are half of 12 mm
    assert blurred[20, 22, 20] / peak == pytest.approx(0.5, rel=0.02)  # 2 of 3 mm


def test_shift_and_gain_in_hounsfield_units(flat):
    assert set(np.unique(intensity.shift(flat, -50).image.voxels)) == {-1050, -50, 450}
    voxels = np.array([-1000, -100, 0, 60, 300], np.int16).reshape(5, 1, 1)
    assert intensity.gain(case_of(voxels), 20).image.voxels.ravel().tolist() == [-1000, -120, 0, 72, 360]


def test_without_a_unit_the_range_of_intensities_stands_for_the_window():
    voxels = np.linspace(0, 4000, 8000, dtype=np.float32).reshape(20, 20, 20)
    case = case_of(voxels)
    assert not case.is_ct
    assert hu(case) == pytest.approx(0.99 * 4000 / 800, rel=1e-3)
    np.testing.assert_allclose(intensity.shift(case, 10).image.voxels, voxels + 10 * hu(case), rtol=1e-5)


def test_integers_are_clipped_where_their_type_ends():
    case = case_of(np.array([0, 250, 255], np.uint8).reshape(3, 1, 1))
    assert intensity.shift(case, 1000).image.voxels.max() == 255


def test_streaks_fan_out_from_two_rods_along_the_spine():
    voxels = np.full((60, 60, 8), -1000, np.int16)
    voxels[10:50, 10:50] = 0
    image = Volume(voxels, np.diag([4.0, 4.0, 4.0, 1.0]))
    case = Labelled(image, image.with_voxels(np.zeros(image.shape, np.uint8)), image.with_voxels(voxels == 0))
    found = intensity.streaks(case, 100, seed=1).image.voxels.astype(float)
    rods = np.argwhere(found[:, :, 4] == 3000)
    assert rods.tolist() == [[23, 20], [36, 20]]  # 50 mm apart, a quarter of the way up from the back
    near, far = found[20:40, 22:28].std(), found[10:50, 45:50].std()
    assert near > 1.5 * far > 10
    assert found.min() >= -1000


def test_labels_on_another_grid_are_refused(flat):
    other = Volume(np.zeros((24, 24, 24), np.uint8), np.diag([9.0, 3, 4, 1]))
    with pytest.raises(VolumeError, match="expected one grid"):
        Labelled(flat.image, other, flat.body)
