"""Which side is where, how large, and in which colour: an asymmetric phantom in several voxel orders."""

import numpy as np
import pytest

from threedme_ros.anatomy import Anatomy, Structure
from threedme_ros.pictures.overlay import BACKGROUND, MAX_ASPECT, overlay_rgb
from threedme_ros.pictures.planes import (
    CT_WINDOW_HU,
    grey_window,
    labelled_centroid,
    outline,
    resized_labels,
    telling_voxel,
    three_planes,
)
from threedme_ros.volume import Volume

COLOURS = {1: (255, 0, 0), 2: (0, 255, 0), 3: (0, 0, 255)}
TABLE = Anatomy([Structure(i, f"organ_{i}", c, 1.0, "no-go") for i, c in COLOURS.items()])


def phantom():
    """RAS+, 40x50x30 at 2x1x3 mm. Label 1 on the right, 2 anterior, 3 superior; the centroid's planes cut each."""
    voxels = np.zeros((40, 50, 30), np.uint8)
    voxels[30:36, 22:28, 12:18] = 1
    voxels[17:23, 40:46, 12:18] = 2
    voxels[17:23, 22:28, 22:28] = 3
    return Volume(voxels, np.diag([2.0, 1.0, 3.0, 1.0]))


def middle(mask):
    """Mean (row, column) as a share of the picture."""
    return np.argwhere(mask).mean(0) / mask.shape


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SAR", "PIL"])
def test_planes_are_hung_the_radiological_way(codes):
    labels, _ = phantom().reoriented(codes)
    axial, coronal, sagittal = three_planes(labels, labels, (19, 25, 15))
    assert (axial.letters, coronal.letters, sagittal.letters) == ("APRL", "SIRL", "SIAP")
    assert middle(axial.labels == 1)[1] < 0.25  # right of the patient: left of the image
    assert middle(axial.labels == 2)[0] < 0.25  # anterior: top
    assert middle(coronal.labels == 1)[1] < 0.25
    assert middle(coronal.labels == 3)[0] < 0.25  # superior: top
    assert middle(sagittal.labels == 2)[1] < 0.25  # anterior: left
    assert middle(sagittal.labels == 3)[0] < 0.25
    assert (axial.size_mm, coronal.size_mm, sagittal.size_mm) == ((50, 80), (90, 80), (90, 50))
    assert coronal.pixels_at(0.5) == (180, 160)


def test_overlay_has_the_table_colours_on_the_right_side_at_one_scale():
    labels = phantom()
    image = labels.with_voxels(np.full(labels.shape, 40, np.int16))
    picture = overlay_rgb(image, labels, TABLE, height=300, at=(19, 25, 15))
    assert picture.dtype == np.uint8 and picture.shape[0] == 300
    per_mm = 276 / 90  # the tallest plane is 90 mm, in 300 pixels less two gaps
    assert picture.shape[1] == pytest.approx((80 + 80 + 50) * per_mm + 4 * 12, abs=3)
    axial = picture[:, 12 : 12 + round(80 * per_mm)]
    red = (axial[..., 0] > 200) & (axial[..., 1] < 30) & (axial[..., 2] < 30)  # the outline, in full colour
    green = (axial[..., 1] > 200) & (axial[..., 0] < 30)
    assert red.sum() > 50 and middle(red)[1] < 0.25
    assert green.sum() > 50 and middle(green)[0] < middle(red)[0]
    assert np.ptp(np.argwhere(red)[:, 1]) == pytest.approx(12 * per_mm, abs=3)  # 6 voxels of 2 mm
    assert np.ptp(np.argwhere(red)[:, 0]) == pytest.approx(6 * per_mm, abs=3)  # 6 voxels of 1 mm
    assert tuple(picture[0, 0]) == BACKGROUND


def test_overlay_of_nothing_is_the_grey_image():
    image = Volume(np.random.default_rng(0).normal(size=(20, 22, 24)).astype(np.float32), np.eye(4))
    picture = overlay_rgb(image, image.with_voxels(np.zeros(image.shape, np.uint8)), TABLE, height=120)
    grey = picture[40, 14:50]
    assert (grey[:, 0] == grey[:, 1]).all() and np.ptp(grey) > 20


@pytest.mark.parametrize(("axis", "shape"), [(0, (120, 960)), (1, (120, 146)), (2, (120, 54))])
def test_a_long_thin_volume_is_drawn_smaller_rather_than_wider(axis, shape):
    voxels = np.zeros(np.roll((700, 4, 4), axis), np.uint8)
    affine = np.diag([*np.roll((30.0, 3.0, 3.0), axis), 1.0])  # 21 m by 12 mm by 12 mm
    labels = Volume(voxels, affine)
    image = labels.with_voxels(np.arange(voxels.size, dtype=np.int16).reshape(voxels.shape))
    picture = overlay_rgb(image, labels, TABLE, height=120)
    assert picture.shape[1] <= MAX_ASPECT * 120 + 3 and picture.shape[0] == 120
    assert picture.shape[:2] == pytest.approx(shape, abs=3)


def test_window_is_fixed_for_ct_and_follows_the_values_otherwise():
    def planes(voxels):
        volume = Volume(voxels, np.eye(4))
        return three_planes(volume, volume.with_voxels(np.zeros(voxels.shape, np.uint8)))

    values = np.linspace(1, 1000, 1000).reshape(10, 10, 10)
    assert grey_window(planes(values - 900)) == CT_WINDOW_HU
    low, high = grey_window(planes(values))
    assert 1 <= low < 100 and 900 < high <= 1000
    assert grey_window(planes(np.zeros((4, 4, 4)))) == (0.0, 1.0)
    assert np.isfinite(grey_window(planes(np.full((4, 4, 4), np.nan)))).all()


def test_slices_are_chosen_where_structures_are():
    voxels = phantom().voxels
    assert np.abs(np.subtract(labelled_centroid(voxels), np.argwhere(voxels).mean(0))).max() < 2
    assert labelled_centroid(np.zeros((5, 7, 9), np.uint8)) == (2, 3, 4)
    i, j, k = telling_voxel(voxels)
    assert 17 <= i < 23 and 22 <= j < 28 and 12 <= k < 18  # each cuts two of the three
    assert telling_voxel(np.zeros((5, 7, 9), np.uint8)) == (2, 3, 4)


def test_labels_grow_without_new_values_and_keep_their_area():
    labels = np.zeros((20, 30), np.uint8)
    labels[4:12, 5:20], labels[12:17, 5:20] = 3, 9
    large = resized_labels(labels, (80, 120))
    assert set(np.unique(large)) == {0, 3, 9}
    for label in (3, 9):
        assert (large == label).mean() == pytest.approx((labels == label).mean(), rel=0.05)
    assert np.array_equal(resized_labels(labels, labels.shape), labels)
    edge = outline(labels)
    assert edge[4, 10] and edge[11, 10] and edge[12, 10] and not edge[8, 10] and not edge[3, 10]
