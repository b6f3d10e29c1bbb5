"""Grown solids against analytic offsets, on any voxel axes."""

from dataclasses import replace

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from threedme_ros.anatomy import Structure
from threedme_ros.geometry import grown
from threedme_ros.geometry.grown import grown_mesh, solids
from threedme_ros.volume import Volume, VolumeError

TURN = Rotation.from_euler("xyz", [20, -30, 40], degrees=True).as_matrix()
AXES = {
    "anisotropic": np.diag([0.9, 1.2, 2.0]),
    "oblique": TURN @ np.diag([1.0, 1.1, 1.6]),
    "left-handed": np.diag([-1.0, 1.2, 1.0]),
    "sheared": np.array([[1.0, 0.3, 0], [0, 1, 0.2], [0, 0, 1]]),
}
ORGAN = Structure(3, "organ", (1, 2, 3), 3.0, "no-go")


def ball(axes_mm, radius_mm=14.0, hollow_mm=0.0, where=ORGAN.id):
    """Labels of a ball, or a shell around an empty core, and its centre (3,) in mm."""
    reach = np.linalg.norm(np.linalg.inv(axes_mm), axis=1) * (radius_mm + 2)
    shape = tuple(int(n) for n in 2 * np.ceil(reach) + 1)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes_mm, [100, -50, 25]
    centre = affine[:3, 3] + axes_mm @ (np.array(shape) / 2 - 0.4)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    away = np.linalg.norm(index @ axes_mm.T + affine[:3, 3] - centre, axis=-1)
    return Volume((((away <= radius_mm) & (away >= hollow_mm)) * where).astype(np.uint8), affine), centre


def checked(mesh) -> trimesh.Trimesh:
    shape = trimesh.Trimesh(mesh.vertices * 1e3, mesh.faces, process=False)
    assert shape.is_watertight and shape.is_winding_consistent and shape.volume > 0
    return shape


@pytest.mark.parametrize("name", AXES)
@pytest.mark.parametrize("extra_mm", [0.0, 4.0])
def test_the_surface_lies_on_the_offset_sphere_never_within_the_margin(name, extra_mm):
    labels, centre = ball(AXES[name])
    solid = solids(labels, None, [ORGAN])["organ"]
    mesh = checked(grown_mesh(solid, extra_mm, max_faces=2000))
    assert len(mesh.faces) <= 2000
    points, _ = trimesh.sample.sample_surface(mesh, 3000, seed=0)
    off = np.linalg.norm(points - centre, axis=1) - (14 + 3 + extra_mm)
    voxel = float(np.linalg.norm(labels.spacing_mm))
    assert -voxel / 2 < off.min() and off.max() < voxel / 2 + 0.5
    assert solid.excess_mm(points).min() > extra_mm - 0.25
    assert abs(solid.volume_ml / (4 / 3 * np.pi * 1.4**3) - 1) < 0.02
    np.testing.assert_allclose(solid.centre_mm, centre, atol=0.3)


def test_low_confidence_widens_the_margin_there():
    labels, centre = ball(np.eye(3))
    unsure = np.full(labels.shape, 255, np.uint8)
    unsure[labels.grid.to_mm(np.argwhere(unsure)).reshape(*labels.shape, 3)[..., 0] > centre[0]] = 60
    solid = solids(labels, labels.with_voxels(unsure), [ORGAN])["organ"]
    widened, plain = (checked(grown_mesh(s)) for s in (solid, solids(labels, None, [ORGAN])["organ"]))
    (left, right), _, _ = (widened.bounds - plain.bounds).T
    assert left == pytest.approx(0.0, abs=0.3)
    assert right == pytest.approx(2.0, abs=0.3)
    assert 0.5 < solid.confidence < 0.75


def test_a_cavity_is_filled():
    labels, _ = ball(np.eye(3), hollow_mm=9.0)
    mesh = checked(grown_mesh(solids(labels, None, [replace(ORGAN, margin_mm=1.0)])["organ"]))
    assert mesh.body_count == 1


def test_the_innermost_point_is_inside_where_the_mean_is_not():
    labels, centre = ball(np.eye(3), hollow_mm=8.0)
    solid = solids(labels, None, [ORGAN])["organ"]
    assert not solid.holds(solid.centre_mm[None])[0]
    assert solid.holds(solid.innermost_mm[None])[0]
    assert np.linalg.norm(solid.innermost_mm - centre) == pytest.approx(11, abs=1.5)


def test_islands_and_absent_structures_are_left_out():
    labels, _ = ball(np.eye(3), radius_mm=10.0)
    voxels = np.pad(labels.voxels, 12)
    voxels[1:4, 1:4, 1:4] = ORGAN.id  # 27 mm^3
    speck = np.zeros_like(voxels)
    speck[1:4, 1:4, 1:4] = ORGAN.id
    whole = solids(Volume(voxels, np.eye(4)), None, [ORGAN, replace(ORGAN, id=9, name="absent")])
    assert set(whole) == {"organ"}
    assert np.count_nonzero(whole["organ"].mask) == np.count_nonzero(labels.voxels)
    assert solids(Volume(speck, np.eye(4)), None, [ORGAN]) == {}


@pytest.mark.parametrize("spacing_mm", [(800.0, 800.0, 800.0), (1e30, 1e30, 1e30), (1e-3, 1.0, 1.0)])
def test_a_spacing_no_scanner_has_is_refused(spacing_mm):
    labels = Volume(np.full((4, 4, 4), ORGAN.id, np.uint8), np.diag([*spacing_mm, 1.0]))
    with pytest.raises(VolumeError, match=r"voxel spacing .*: expected 0.01 to 50 mm"):
        solids(labels, None, [ORGAN])


def test_a_surface_of_too_many_points_is_refused_before_it_is_sampled(monkeypatch):
    voxels = np.indices((24, 24, 24)).sum(0) % 2 * ORGAN.id  # a chequerboard: six faces a voxel, 1600 points a face
    monkeypatch.setattr(grown.np, "argwhere", None)
    with pytest.raises(VolumeError, match=r"6912 voxels takes 6.64e\+07 points, expected at most 16777216"):
        solids(Volume(voxels.astype(np.uint8), np.diag([50.0, 50, 50, 1])), None, [ORGAN])


def test_the_structures_share_the_points_there_are(monkeypatch):
    voxels = np.zeros((9, 4, 4), np.uint8)
    voxels[1:3, 1:3, 1:3], voxels[6:8, 1:3, 1:3] = ORGAN.id, 9
    labels, both = Volume(voxels, np.diag([5.0, 5, 5, 1])), [ORGAN, replace(ORGAN, id=9, name="other")]
    monkeypatch.setattr(grown, "MAX_SURFACE_POINTS", 2 * 24 * 4 * 4)  # each has 24 faces of 5 mm, sampled 4 x 4 times
    assert {len(solid.surface_mm) for solid in solids(labels, None, both).values()} == {24 * 4 * 4}
    monkeypatch.setattr(grown, "MAX_SURFACE_POINTS", 2 * 24 * 4 * 4 - 1)
    with pytest.raises(VolumeError, match="takes 384 points, expected at most 383 of the 767"):
        solids(labels, None, both)


def test_a_negative_growth_is_refused():
    labels, _ = ball(np.eye(3), radius_mm=5.0)
    with pytest.raises(ValueError, match=r"extra_mm -1\.0: expected zero or more mm"):
        grown_mesh(solids(labels, None, [ORGAN])["organ"], -1.0)
