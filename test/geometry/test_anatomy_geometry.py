import numpy as np

from threedme_ros.anatomy import Anatomy, Structure
from threedme_ros.geometry.anatomy_geometry import anatomy_geometry
from threedme_ros.geometry.margins import obstacle_points
from threedme_ros.geometry.surface import surface_meshes, surface_points
from threedme_ros.volume import Volume


def test_side_by_side_is_the_same_as_in_turn():
    table = Anatomy([Structure(i, f"organ_{i}", (1, 2, 3), float(i), "no-go") for i in range(1, 13)])
    rng = np.random.default_rng(0)
    index = np.stack(np.meshgrid(*map(np.arange, (60, 64, 56)), indexing="ij"), -1)
    centres = rng.uniform(8, 50, (12, 3))
    voxels = np.zeros(index.shape[:3], np.uint8)
    for label, centre in enumerate(centres, 1):
        voxels[np.linalg.norm(index - centre, axis=-1) < rng.uniform(5, 11)] = label
    labels = Volume(voxels, np.diag([1.5, 1.5, 2.0, 1.0]))
    confidence = labels.with_voxels(rng.integers(100, 255, voxels.shape).astype(np.uint8))
    whole = anatomy_geometry(labels, confidence, table, max_faces=400, voxel_size_m=0.003)
    meshes = surface_meshes(labels, table, max_faces=400)
    assert list(whole.meshes) == list(meshes)
    for name, mesh in meshes.items():  # several simplified at once: no thread may disturb another's
        assert np.array_equal(whole.meshes[name].vertices, mesh.vertices)
        assert np.array_equal(whole.meshes[name].faces, mesh.faces)
    assert np.array_equal(whole.cloud.points, surface_points(labels, confidence, table, voxel_size_m=0.003).points)
    assert np.array_equal(whole.obstacles, obstacle_points(labels, confidence, table))
