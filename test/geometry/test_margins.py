"""Grown anatomy against analytic offsets and SciPy's distance transform."""

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from threedme_ros.anatomy import Anatomy, Structure
from threedme_ros.geometry import margins
from threedme_ros.geometry.margins import dilated, obstacle_points, packed, unpacked, widening
from threedme_ros.volume import Volume

TURN = Rotation.from_euler("xyz", [20, -30, 40], degrees=True).as_matrix()
SHEAR = np.array([[1.0, 0.3, 0], [0, 1, 0.2], [0, 0, 1]])
AXES = {
    "isotropic": np.eye(3),
    "anisotropic": np.diag([0.8, 1.1, 2.0]),
    "oblique": TURN @ np.diag([0.9, 1.0, 1.6]),
    "left-handed": np.diag([-1.0, 1.2, 0.9]),
    "sheared": SHEAR,
}


def table(margin_mm=5.0, role="no-go"):
    return Anatomy([Structure(1, "organ", (1, 2, 3), margin_mm, role)])


def sphere(axes_mm, radius_mm=20.0, room_mm=24.0):
    """Labels 1 within ``radius_mm`` of the centre, returned beside them, in mm."""
    reach = np.linalg.norm(np.linalg.inv(axes_mm), axis=1) * room_mm
    shape = tuple(int(n) for n in 2 * np.ceil(reach) + 1)
    affine = np.eye(4)
    affine[:3, :3] = axes_mm
    affine[:3, 3] = [100, -50, 25]
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    centre = affine[:3, 3] + axes_mm @ (np.array(shape) / 2 - 0.33)
    inside = np.linalg.norm(index @ axes_mm.T + affine[:3, 3] - centre, axis=-1) <= radius_mm
    return Volume(inside.astype(np.uint8), affine), centre


@pytest.mark.parametrize("name", AXES)
@pytest.mark.parametrize("margin_mm", [0.0, 3.0, 6.0])
def test_obstacles_lie_on_the_offset_sphere_within_half_a_voxel(name, margin_mm):
    labels, centre = sphere(AXES[name])  # the margin reaches beyond the volume: obstacles do too
    points = obstacle_points(labels, None, table(margin_mm)) * 1e3
    error = np.linalg.norm(points - centre, axis=1) - (20 + margin_mm)
    assert np.abs(error).max() <= max(labels.spacing_mm) / 2
    assert np.abs(error).mean() <= max(labels.spacing_mm) / 5


@pytest.mark.parametrize("resolution_m", [0.004, 0.01])
def test_no_hole_is_wider_than_the_resolution(resolution_m):
    labels, centre = sphere(np.diag([0.9, 1.0, 1.4]))
    points = obstacle_points(labels, None, table(4.0), resolution_m=resolution_m)
    direction = np.random.default_rng(0).normal(size=(20000, 3))
    surface = (centre + 24 * direction / np.linalg.norm(direction, axis=1)[:, None]) / 1e3
    assert 2 * cKDTree(points).query(surface)[0].max() <= resolution_m


@pytest.mark.parametrize("radius_mm", [1.0, 2.5, 5.0])
def test_bit_dilation_is_the_thresholded_distance_transform(radius_mm):
    spacing = (0.8, 1.3, 1.1)
    mask = np.zeros((30, 26, 128), bool)
    mask[8:22, 8:18, 10:118] = np.random.default_rng(1).random((14, 10, 108)) < 0.01
    grown = unpacked(dilated(packed(mask), np.diag(spacing), radius_mm)).astype(bool)
    assert np.array_equal(grown, distance_transform_edt(~mask, sampling=spacing) <= radius_mm + 1e-6)


def test_only_no_go_structures_become_obstacles():
    labels, _ = sphere(np.eye(3), radius_mm=8, room_mm=10)
    for role in ("target", "context"):
        assert obstacle_points(labels, None, table(role=role)).shape == (0, 3)
    assert obstacle_points(labels.with_voxels(np.zeros_like(labels.voxels)), None, table()).shape == (0, 3)


def test_a_larger_margin_reaches_through_a_thin_neighbour():
    voxels = np.zeros((40, 40, 40), np.uint8)
    voxels[10:20, 10:30, 10:30], voxels[20, 10:30, 10:30] = 1, 2
    both = Anatomy([Structure(1, "vessel", (1, 2, 3), 6.0, "no-go"), Structure(2, "wall", (1, 2, 3), 1.0, "no-go")])
    points = obstacle_points(Volume(voxels, np.eye(4)), None, both) * 1e3
    assert points[:, 0].max() == pytest.approx(19.5 + 6, abs=0.5)
    assert points[:, 0].min() == pytest.approx(9.5 - 6, abs=0.5)


def test_low_confidence_widens_and_never_narrows():
    mm = widening(np.arange(256, dtype=np.uint8), 2.0)
    assert mm[0] == 2.0 and mm[150] == 1.0 and mm[255] == 0.0 and (np.diff(mm) <= 0).all()
    labels, centre = sphere(np.eye(3), room_mm=30)
    halves = np.where(np.arange(labels.shape[0])[:, None, None] < labels.shape[0] // 2, 60, 250)
    confidence = labels.with_voxels(np.broadcast_to(halves, labels.shape).astype(np.uint8))
    points = obstacle_points(labels, confidence, table(3.0)) * 1e3 - centre
    assert points[:, 0].min() == pytest.approx(-25, abs=0.5)
    assert points[:, 0].max() == pytest.approx(23, abs=0.5)


@pytest.mark.parametrize(
    ("spacing", "margin_mm", "step"),
    [((0.1, 0.1, 0.1), 5.0, 2), ((1.0, 1.0, 1.0), 100.0, 4), ((0.02, 1.0, 1.0), 3.0, 5)],
)
def test_a_margin_of_many_voxels_reaches_as_far_and_no_less(spacing, margin_mm, step):
    voxels = np.zeros((40, 20, 20), np.uint8)
    voxels[10:31, 5:15, 5:15] = 1  # neither end at a block's
    points = obstacle_points(Volume(voxels, np.diag([*spacing, 1.0])), None, table(margin_mm)) * 1e3
    low, high = 9.5 * spacing[0] - points[:, 0].min(), points[:, 0].max() - 30.5 * spacing[0]
    assert margin_mm - 1e-3 <= min(low, high)
    assert max(low, high) <= margin_mm + step * spacing[0]


def test_what_is_computed_does_not_grow_with_how_fine_the_voxels_are(monkeypatch):
    sizes = []
    monkeypatch.setattr(margins, "packed", lambda mask: sizes.append(mask.shape) or packed(mask))
    voxels = np.zeros((6000, 4, 4), np.uint8)
    voxels[2000:3000, 1:-1, 1:-1] = 1
    for spacing in ((0.1, 0.1, 0.1), (0.01, 1.0, 1.0), (0.0005, 30.0, 30.0)):
        assert len(obstacle_points(Volume(voxels, np.diag([*spacing, 1.0])), None, table(3.0)))
    assert sizes and max(np.prod(size) for size in sizes) < 4e7  # 4 MB a packed array


def test_the_least_confident_voxel_of_a_block_counts():
    labels, centre = sphere(np.diag([0.1, 0.1, 0.1]), radius_mm=3, room_mm=4)
    confidence = np.full(labels.shape, 255, np.uint8)
    confidence[::2] = 0
    points = obstacle_points(labels, labels.with_voxels(confidence), table(5.0)) * 1e3 - centre
    assert np.linalg.norm(points, axis=1).min() >= 3 + 5 + 2 - 0.1


def test_bad_arguments_are_named():
    labels, _ = sphere(np.eye(3), radius_mm=5, room_mm=8)
    with pytest.raises(ValueError, match="resolution_m 0"):
        obstacle_points(labels, None, table(), resolution_m=0)
    with pytest.raises(ValueError, match="low_confidence_mm -1"):
        obstacle_points(labels, None, table(), low_confidence_mm=-1)


def test_moving_points_onto_the_offset_opens_no_hole_in_creases():
    voxels = np.zeros((70, 60, 60), np.uint8)
    index = np.stack(np.meshgrid(*map(np.arange, voxels.shape), indexing="ij"), -1)
    voxels[np.linalg.norm(index - [22, 30, 30], axis=-1) < 12] = 1
    voxels[np.linalg.norm(index - [47, 30, 30], axis=-1) < 10] = 1
    points = obstacle_points(Volume(voxels, np.eye(4)), None, table(5.0), resolution_m=0.005) * 1e3
    direction = np.random.default_rng(0).normal(size=(20000, 3))
    direction /= np.linalg.norm(direction, axis=1)[:, None]
    balls = [([22, 30, 30], 17), ([47, 30, 30], 15)]
    surface = np.concatenate([centre + radius * direction for centre, radius in balls])
    for centre, radius in balls:
        surface = surface[np.linalg.norm(surface - centre, axis=1) >= radius - 1e-9]
    assert 2 * cKDTree(points).query(surface)[0].max() <= 5.0
