"""Meshes and clouds against an analytic ellipsoid, on affines that catch every axis, mirror and unit mistake."""

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from threedme_ros.anatomy import Anatomy, Structure
from threedme_ros.geometry import surface
from threedme_ros.geometry.contour import is_closed, unpinched
from threedme_ros.geometry.surface import surface_meshes, surface_points
from threedme_ros.volume import Volume

SEMI_AXES_MM = np.array([30.0, 22.0, 16.0])
TILT = Rotation.from_euler("xyz", [20, -35, 50], degrees=True).as_matrix()
CENTRE_MM = np.array([40.0, -60.0, 110.0])
TURN = Rotation.from_euler("zyx", [25, 10, -15], degrees=True).as_matrix()
AFFINES = {
    "isotropic": np.diag([1.0, 1.0, 1.0]),
    "anisotropic": np.diag([0.9, 1.2, 2.5]),
    "oblique": TURN @ np.diag([0.9, 1.2, 2.0]),
    "left-handed": np.diag([-1.0, 1.0, 1.5]),
    "oblique left-handed": TURN @ np.diag([1.0, -1.4, 1.1]),
}
ONE = Anatomy([Structure(7, "organ", (10, 20, 30), 3.0, "no-go")])


def ellipsoid(axes_mm, order="C"):
    """Labels 7 inside the tilted ellipsoid, on a grid around it with ``axes_mm`` (3, 3) as voxel axes."""
    reach = np.linalg.norm(np.linalg.inv(axes_mm), axis=1) * 40
    shape = tuple(int(n) for n in 2 * np.ceil(reach) + 1)
    affine = np.eye(4)
    affine[:3, :3] = axes_mm
    affine[:3, 3] = CENTRE_MM + 0.21 - axes_mm @ (np.array(shape) - 1) / 2
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    inside = np.linalg.norm((index @ axes_mm.T + affine[:3, 3] - CENTRE_MM) @ TILT / SEMI_AXES_MM, axis=-1) <= 1
    return Volume(np.asarray(7 * inside, np.uint8, order=order), affine)


def distance_mm(points_m):
    """Signed distance to the ellipsoid, to second order near it: f / |grad f|."""
    local = (np.asarray(points_m, np.float64) * 1e3 - CENTRE_MM) @ TILT
    radius = np.linalg.norm(local / SEMI_AXES_MM, axis=1)
    return radius * (radius - 1) / np.linalg.norm(local / SEMI_AXES_MM**2, axis=1)


@pytest.mark.parametrize("name", AFFINES)
@pytest.mark.parametrize(("max_faces", "voxels"), [(5000, 0.5), (800, 0.9)])
def test_mesh_is_closed_outward_and_on_the_analytic_surface(name, max_faces, voxels):
    labels = ellipsoid(AFFINES[name])
    mesh = surface_meshes(labels, ONE, max_faces=max_faces)["organ"]
    solid = trimesh.Trimesh(mesh.vertices, mesh.faces)
    assert mesh.vertices.dtype == np.float32 and mesh.faces.dtype == np.int32
    assert len(mesh.faces) <= max_faces
    assert solid.is_watertight and solid.is_winding_consistent and solid.body_count == 1
    analytic_ml = 4 / 3 * np.pi * SEMI_AXES_MM.prod() / 1000
    assert solid.volume * 1e6 == pytest.approx(analytic_ml, rel=0.02)  # positive: wound outward
    assert mesh.volume_ml == pytest.approx(solid.volume * 1e6, rel=1e-3)
    assert np.abs(distance_mm(mesh.vertices)).max() <= voxels * max(labels.spacing_mm)
    assert np.abs(distance_mm(solid.triangles_center)).max() <= voxels * max(labels.spacing_mm)


@pytest.mark.parametrize("name", AFFINES)
def test_cloud_lies_within_half_a_voxel_of_the_analytic_surface(name):
    labels = ellipsoid(AFFINES[name])
    cloud = surface_points(labels, None, ONE)
    assert cloud.points.dtype == np.float32 and len(cloud) > 1000
    assert np.abs(distance_mm(cloud.points)).max() <= max(labels.spacing_mm) / 2
    assert set(cloud.labels) == {7} and set(cloud.confidence) == {255}


def test_memory_order_does_not_move_the_geometry():
    c, fortran = (ellipsoid(AFFINES["oblique"], order) for order in "CF")
    points = [surface_points(v, None, ONE).points for v in (c, fortran)]
    assert np.allclose(*[p[np.lexsort(p.T)] for p in points], atol=1e-7)
    turned = Volume(fortran.voxels[::-1], fortran.affine @ [[-1, 0, 0, c.shape[0] - 1], *np.eye(4)[1:]])
    for volume in (fortran, turned):
        assert np.abs(distance_mm(surface_meshes(volume, ONE)["organ"].vertices)).max() <= 1.0


def test_a_structure_cut_by_the_border_is_closed_there():
    mesh = surface_meshes(Volume(np.full((12, 14, 16), 7, np.uint8), np.diag([2.0, 2, 2, 1])), ONE)["organ"]
    assert trimesh.Trimesh(mesh.vertices, mesh.faces).is_watertight
    assert np.allclose(mesh.vertices.min(0), -0.001, atol=3e-4)  # the outer faces of the border voxels
    assert np.allclose(mesh.vertices.max(0), [0.023, 0.027, 0.031], atol=3e-4)


def test_touching_structures_are_closed_each_on_its_own():
    voxels = np.zeros((30, 30, 30), np.uint8)
    voxels[5:15, 5:25, 5:25], voxels[15:25, 5:25, 5:25] = 1, 2
    two = Anatomy([Structure(i, n, (9, 9, 9), 1.0, "no-go") for i, n in ((1, "low"), (2, "high"))])
    meshes = surface_meshes(Volume(voxels, np.eye(4)), two)
    assert list(meshes) == ["low", "high"]
    for mesh in meshes.values():
        assert trimesh.Trimesh(mesh.vertices, mesh.faces).is_watertight
        assert mesh.volume_ml == pytest.approx(4.0, rel=0.02)


def test_small_islands_go_by_volume_and_a_structure_of_only_islands_has_no_mesh():
    voxels = np.zeros((40, 40, 40), np.uint8)
    voxels[4:24, 4:24, 4:24] = 7
    voxels[30:34, 30:34, 30:34] = 7  # 0.064 ml
    labels = Volume(voxels, np.eye(4))
    assert surface_meshes(labels, ONE, min_volume_ml=0.1)["organ"].vertices.max() < 0.026
    assert surface_meshes(labels, ONE, min_volume_ml=0.02)["organ"].vertices.max() > 0.03
    assert surface_meshes(labels, ONE, min_volume_ml=9.0) == {}
    assert surface_meshes(Volume(np.zeros((5, 5, 5), np.uint8), np.eye(4)), ONE) == {}


def test_one_voxel_has_a_mesh_when_asked_for():
    voxels = np.zeros((9, 9, 9), np.uint8)
    voxels[4, 4, 4] = 7
    mesh = surface_meshes(Volume(voxels, np.eye(4)), ONE, min_volume_ml=0.0)["organ"]
    assert trimesh.Trimesh(mesh.vertices, mesh.faces).is_watertight
    assert np.allclose(mesh.vertices.mean(0), 0.004, atol=1e-5)


def test_thin_and_branched_structures_stay_watertight_at_few_faces():
    rng = np.random.default_rng(3)
    voxels = np.zeros((60, 60, 60), np.uint8)
    for _ in range(25):
        axis, (a, b) = rng.integers(3), rng.integers(3, 54, 2)
        np.moveaxis(voxels, axis, 0)[2:58, a : a + 3, b : b + 3] = 7
    for max_faces in (400, 1500, 5000):
        mesh = surface_meshes(Volume(voxels, np.diag([1.0, 1.3, 0.8, 1])), ONE, max_faces=max_faces)["organ"]
        assert len(mesh.faces) <= max_faces
        assert trimesh.Trimesh(mesh.vertices, mesh.faces).is_watertight


def test_two_cubes_joined_in_an_edge_are_pulled_apart():
    cube = trimesh.creation.box()
    vertices = np.concatenate([cube.vertices, cube.vertices + np.array([1, 1, 0])])
    key = np.unique(np.round(vertices, 6), axis=0, return_index=True, return_inverse=True)
    faces = key[2].ravel()[np.concatenate([cube.faces, cube.faces + 8])].astype(np.int32)
    assert not is_closed(faces)
    apart, split = unpinched(vertices[key[1]], faces)
    assert is_closed(split) and len(apart) == 16 and len(np.unique(apart, axis=0)) == 16


def test_too_few_faces_are_refused():
    with pytest.raises(ValueError, match="max_faces 12"):
        surface_meshes(ellipsoid(AFFINES["isotropic"]), ONE, max_faces=12)


def test_cloud_keeps_label_and_confidence_of_its_voxel_and_filters():
    voxels = np.zeros((20, 20, 20), np.uint8)
    voxels[2:8, 2:8, 2:8], voxels[12:18, 2:8, 2:8], voxels[2:8, 12:18, 2:8] = 1, 2, 9  # 9 is not in the table
    two = Anatomy([Structure(i, n, (9, 9, 9), 1.0, "no-go") for i, n in ((1, "low"), (2, "high"))])
    labels = Volume(voxels, np.eye(4))
    confidence = labels.with_voxels(np.where(voxels == 2, 100, 240).astype(np.uint8))
    cloud = surface_points(labels, confidence, two)
    assert sorted(set(cloud.labels)) == [1, 2]
    assert (cloud.points[cloud.labels == 2, 0] > 0.011).all()
    assert set(cloud.confidence[cloud.labels == 2]) == {100}
    assert len(cloud) == 2 * (6**3 - 4**3)
    assert set(surface_points(labels, confidence, two, min_confidence=128).labels) == {1}
    thin = surface_points(labels, confidence, two, voxel_size_m=0.002)
    cells = np.unique(np.c_[np.floor(thin.points / np.float32(0.002)), thin.labels], axis=0)
    assert len(cells) == len(thin) < len(cloud) / 2


def test_confidence_on_another_grid_is_refused():
    labels = ellipsoid(AFFINES["isotropic"])
    with pytest.raises(ValueError, match="grid"):
        surface_points(labels, Volume(labels.voxels, np.diag([2.0, 2, 2, 1])), ONE)


def test_a_structure_that_is_dust_and_cannot_be_simplified_is_an_end_and_not_a_loop(monkeypatch):
    monkeypatch.setattr(surface, "simplified", lambda vertices, faces, spacing_mm, max_faces: (vertices, faces))
    dust = (np.random.default_rng(0).random((24, 20, 16)) < 0.1).astype(np.uint8)
    table = Anatomy([Structure(1, "dust", (1, 2, 3), 1.0, "no-go")])
    volume = Volume(dust, np.diag([3.75, 3.0, 6.5, 1.0]).astype(np.float32), "patient")
    mesh = surface.surface_meshes(volume, table, max_faces=100, min_volume_ml=0.0)["dust"]
    assert 0 < len(mesh.faces) <= 100
    assert is_closed(mesh.faces)
