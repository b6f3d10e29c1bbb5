import numpy as np
import pytest

from threedme_ros.anatomy import Anatomy
from threedme_ros.phantom import phantom, phantom_on
from threedme_ros.volume import Grid, resample


def centroid_mm(labels, id):
    return labels.grid.to_mm(np.argwhere(labels.voxels == id).mean(0)[None])[0]


def test_every_structure_of_the_table_is_there_and_lies_on_its_side(anatomy):
    image, labels = phantom()
    assert (image.voxels.dtype, labels.voxels.dtype) == (np.int16, np.uint8)
    assert set(np.unique(labels.voxels)) == {0, *(s.id for s in anatomy)}
    where = {s.name: centroid_mm(labels, s.id) for s in anatomy}
    assert where["liver"][0] > 40 and where["kidney_right"][0] > 40
    assert where["spleen"][0] < -40 and where["kidney_left"][0] < -40
    assert where["vertebrae"][1] < where["aorta"][1] < where["small_bowel"][1]
    assert where["urinary_bladder"][2] < where["pancreas"][2] < where["liver"][2]


def test_hu_are_those_of_the_tissue(anatomy):
    image, labels = phantom()
    assert image.voxels[labels.voxels == anatomy["liver"].id].mean() == pytest.approx(110, abs=2)
    assert image.voxels[0, 0, 0] < -950


def test_no_flip_or_swap_leaves_it_unchanged():
    _, labels = phantom((40, 40, 40), (8, 8, 8))
    for axis in range(3):
        assert (np.flip(labels.voxels, axis) != labels.voxels).sum() > 500


def test_any_grid_shows_the_same_phantom(anatomy):
    angle = np.radians(25)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, -1]]) * 5
    affine[:3, 3] = (-150, -200, 230)
    image, labels = phantom_on(Grid((90, 80, 90), affine), frame_id="table")
    assert image.frame_id == labels.frame_id == "table"
    straight = phantom()[1]
    for name in ("liver", "spleen", "kidney_right"):
        np.testing.assert_allclose(
            centroid_mm(labels, anatomy[name].id), centroid_mm(straight, anatomy[name].id), atol=2.5
        )


def test_the_centre_can_be_moved(anatomy):
    _, still = phantom()
    _, moved = phantom_on(Grid(still.shape, still.affine), centre_mm=(8.0, -7.0, 12.0))
    expected = resample(still, Grid(still.shape, _shifted(still.affine, (-8, 7, -12))), order=0, fill=0)
    assert (moved.voxels == expected.voxels)[3:-3, 3:-3, 3:-3].mean() > 0.99


def _shifted(affine, by):
    affine = affine.copy()
    affine[:3, 3] += by
    return affine


def test_a_table_without_a_structure_leaves_it_unlabelled(anatomy):
    few = Anatomy([anatomy["liver"], anatomy["aorta"]])
    assert set(np.unique(phantom(anatomy=few)[1].voxels)) == {0, anatomy["liver"].id, anatomy["aorta"].id}


def test_the_same_seed_gives_the_same_image():
    shape, spacing = (20, 20, 20), (18, 12, 20)
    np.testing.assert_array_equal(phantom(shape, spacing)[0].voxels, phantom(shape, spacing)[0].voxels)
    assert (phantom(shape, spacing, seed=1)[0].voxels != phantom(shape, spacing)[0].voxels).any()
