import itertools

import nibabel as nib
import numpy as np
import pytest

from threedme_ros.phantom import phantom, phantom_on
from threedme_ros.volume import Grid, Volume, VolumeError, resample

ORIENTATIONS = [
    "".join(codes)
    for axes in itertools.permutations(("RL", "AP", "SI"))
    for codes in itertools.product(*axes)
]  # fmt: skip


def rotation(x: float, y: float, z: float) -> np.ndarray:
    """Degrees about each axis, by hand: no library under test takes part."""
    x, y, z = np.radians((x, y, z))
    about_x = [[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]]
    about_y = [[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]]
    about_z = [[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]]
    return np.array(about_z) @ about_y @ about_x


def oblique_affine() -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = rotation(12, -8, 20) * (0.9, 1.1, 2.5)
    affine[:3, 3] = (-40, 25, 300)
    return affine


@pytest.fixture(scope="module")
def image():
    return phantom((24, 20, 18), (15.0, 12.0, 23.0))[0]


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_reorienting_any_of_the_48_orders_to_ras_and_back_is_bit_exact(image, codes):
    given, _ = image.reoriented(codes)
    assert given.grid.orientation == codes
    canonical, step = given.reoriented()
    np.testing.assert_array_equal(canonical.voxels, image.voxels)
    np.testing.assert_allclose(canonical.affine, image.affine, atol=1e-9)
    np.testing.assert_array_equal(step.invert(canonical.voxels), given.voxels)
    assert np.shares_memory(canonical.voxels, image.voxels)


@pytest.mark.parametrize("codes", ("LPS", "SAR", "PIL"))
def test_reorienting_agrees_with_nibabel(image, codes):
    given, _ = image.reoriented(codes)
    theirs = nib.as_closest_canonical(nib.Nifti1Image(given.voxels, given.affine))
    ours, _ = given.reoriented()
    np.testing.assert_array_equal(ours.voxels, theirs.get_fdata())
    np.testing.assert_allclose(ours.affine, theirs.affine, atol=1e-9)


def test_reorienting_keeps_an_oblique_rotation_in_the_affine():
    volume = Volume(np.arange(24.0).reshape(2, 3, 4), oblique_affine() @ np.diag([-1, -1, 1, 1]))
    assert volume.grid.orientation == "LPS"
    canonical, _ = volume.reoriented()
    assert canonical.grid.orientation == "RAS"
    # the same voxel lies at the same place: corner (0, 0, 0) is corner (1, 2, 0) after two flips
    assert canonical.voxels[1, 2, 0] == volume.voxels[0, 0, 0]
    np.testing.assert_allclose(canonical.grid.to_mm([[1, 2, 0]]), volume.grid.to_mm([[0, 0, 0]]), atol=1e-9)


def test_to_index_inverts_to_mm_on_an_oblique_grid():
    grid = Grid((5, 6, 7), oblique_affine())
    indices = np.array([[0, 0, 0], [4, 5, 6], [1.5, 2.25, 3]])
    np.testing.assert_allclose(grid.to_index(grid.to_mm(indices)), indices, atol=1e-9)
    np.testing.assert_allclose(grid.spacing_mm, (0.9, 1.1, 2.5))
    assert grid.voxel_volume_ml == pytest.approx(0.9 * 1.1 * 2.5 / 1000)


def test_scaled_keeps_the_outer_voxel_faces():
    grid = Grid((4, 6, 10), np.diag([2.0, 1.0, 1.0, 1.0]))
    half = grid.scaled((8, 3, 5))
    np.testing.assert_allclose(half.spacing_mm, (1, 2, 2))
    # first face at index -0.5 and last face at n - 0.5, in both: x from -1 to 7, y from -0.5 to 5.5, z to 9.5
    for g in (grid, half):
        np.testing.assert_allclose(g.to_mm([np.full(3, -0.5)]), [[-1, -0.5, -0.5]])
        np.testing.assert_allclose(g.to_mm([np.array(g.shape) - 0.5]), [[7, 5.5, 9.5]])


def test_resampling_a_ramp_in_mm_gives_the_mm_of_the_new_centres():
    grid = Grid((12, 14, 10), oblique_affine())
    slope = np.array([0.5, -2.0, 1.25])
    indices = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1)
    ramp = Volume((grid.to_mm(indices.reshape(-1, 3)) @ slope).reshape(grid.shape).astype(np.float32), grid.affine)
    finer = grid.scaled((18, 21, 15))
    got = resample(ramp, finer)
    inner = np.stack(np.meshgrid(*[np.arange(1, n - 1) for n in finer.shape], indexing="ij"), -1).reshape(-1, 3)
    np.testing.assert_allclose(got.voxels[tuple(inner.T)], finer.to_mm(inner) @ slope, atol=1e-3)


def test_resampling_through_mm_equals_sampling_the_phantom_there():
    """Labels of the phantom, through an oblique grid, land where the phantom itself has them."""
    _, labels = phantom((60, 50, 50), (6, 5, 8))
    affine = np.eye(4)
    affine[:3, :3] = rotation(10, 20, -15) * 8.0
    affine[:3, 3] = labels.grid.to_mm([[30, 25, 25]])[0] - affine[:3, :3] @ (12, 10, 9)
    grid = Grid((25, 21, 19), affine)
    got, expected = resample(labels, grid, order=0, fill=0).voxels, phantom_on(grid)[1].voxels
    assert (got == expected).mean() > 0.93  # they differ at surfaces, by half a voxel
    assert (got[expected == 4] == 4).mean() > 0.9  # the liver


def test_nearest_resampling_onto_flipped_grids_is_exact_up_to_the_border(image):
    affine = image.affine.copy()
    affine[:3, 3] += (0.1, 1e-7, -1e-7)  # what float32 affines do to borders
    flipped, _ = Volume(image.voxels, affine).reoriented("LPS")
    got = resample(flipped, image.grid, order=0, fill=-5)
    np.testing.assert_array_equal(got.voxels, image.voxels)


def test_resampling_fills_outside_or_extends_the_border():
    volume = Volume(np.full((3, 3, 3), 7, np.int16), np.eye(4))
    wider = Grid((5, 3, 3), np.array([[1.0, 0, 0, -1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    assert resample(volume, wider, order=0, fill=0).voxels[:, 1, 1].tolist() == [0, 7, 7, 7, 0]
    assert resample(volume, wider, order=1).voxels[:, 1, 1].tolist() == [7, 7, 7, 7, 7]


def test_matches_compares_corners_in_mm():
    grid = Grid((100, 100, 100), np.eye(4))
    tilted = np.eye(4)
    tilted[0, 1] = 1e-4  # 0.0099 mm at the far corner
    assert grid.matches(Grid(grid.shape, np.eye(4)))
    assert not grid.matches(Grid(grid.shape, tilted))
    assert grid.matches(Grid(grid.shape, tilted), tolerance_mm=0.01)
    assert not grid.matches(Grid((100, 100, 99), np.eye(4)))


@pytest.mark.parametrize(
    ("voxels", "affine", "reason"),
    [
        (np.zeros((2, 2)), np.eye(4), "2-D array"),
        (np.zeros((2, 2, 2, 3)), np.eye(4), "4-D array"),
        (np.zeros((0, 2, 2)), np.eye(4), "at least one voxel"),
        (np.zeros((2, 2, 2), complex), np.eye(4), "complex128: expected real scalars"),
        (np.zeros((2, 2, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")]), np.eye(4), "expected real scalars"),
        (np.zeros((2, 2, 2)), np.eye(3), r"affine of shape \(3, 3\)"),
        (np.zeros((2, 2, 2)), np.diag([1, 1, np.nan, 1]), "expected finite"),
        (np.zeros((2, 2, 2)), np.diag([1, 1, np.inf, 1]), "expected finite"),
        (np.zeros((2, 2, 2)), np.diag([1, 1, 0, 1]), "singular affine"),
        (np.zeros((2, 2, 2)), np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "singular affine"),
        (np.zeros((2, 2, 2)), np.diag([1, 1, 1, 2]), "last row"),
    ],
)
def test_what_has_no_place_in_space_is_refused(voxels, affine, reason):
    with pytest.raises(VolumeError, match=reason):
        Volume(voxels, affine)


def test_an_affine_cannot_be_changed_behind_a_volume():
    affine = np.eye(4)
    volume = Volume(np.zeros((2, 2, 2)), affine)
    affine[0, 3] = 5
    assert volume.affine[0, 3] == 0
    with pytest.raises(ValueError, match="read-only"):
        volume.affine[0, 3] = 1


def test_with_voxels_wants_the_same_grid(image):
    assert image.with_voxels(np.zeros(image.shape, np.uint8)).affine is not None
    with pytest.raises(VolumeError, match="expected the grid's"):
        image.with_voxels(np.zeros((1, 2, 3)))
