import numpy as np
import pytest

from threedme_ros.intraoperative import resect
from threedme_ros.phantom import phantom


@pytest.fixture(scope="module")
def image():
    return phantom((72, 60, 48), (4.0, 4.0, 6.0))[0]


def test_cavity_is_fluid_of_about_the_radius_asked_for(image):
    changed = resect(image, 25.0, seed=3)
    moved = np.argwhere(changed.voxels != image.voxels)
    centre = (moved.min(0) + moved.max(0)) / 2
    away = np.linalg.norm((moved - centre) * image.spacing_mm, axis=1)
    inside = changed.voxels[tuple(moved[away < 15].T)]
    assert abs(inside.mean() - 12) < 5
    assert away.max() < 3 * 25 + 6
    assert changed.voxels.dtype == image.voxels.dtype
    np.testing.assert_array_equal(changed.affine, image.affine)


def test_change_grows_with_the_radius_and_repeats_for_a_seed(image):
    counts = [np.count_nonzero(resect(image, r, seed=1).voxels != image.voxels) for r in (0, 8, 16, 24)]
    assert counts[0] == 0 and counts == sorted(counts) and counts[1] > 0
    np.testing.assert_array_equal(resect(image, 16, seed=1).voxels, resect(image, 16, seed=1).voxels)
    assert (resect(image, 16, seed=1).voxels != resect(image, 16, seed=2).voxels).any()


def test_input_is_left_alone_and_noise_free_air_gets_a_cavity_in_the_middle():
    air = phantom((24, 24, 24), (4.0, 4.0, 4.0))[0]
    empty = air.with_voxels(np.full(air.shape, -1000, np.int16))
    changed = resect(empty, 12.0)
    assert (empty.voxels == -1000).all()
    assert changed.voxels[12, 12, 12] > -50
