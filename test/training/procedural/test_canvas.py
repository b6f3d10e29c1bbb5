"""Shapes on a canvas, against volumes and coordinates worked out by hand."""

import numpy as np
import pytest

from threedme_ros.training.procedural.canvas import NOISE_LIMIT, Canvas, Shape, curve, largest, smooth_noise
from threedme_ros.training.procedural.palette import Palette


def canvas(warp_mm: float = 0.0, bend: tuple = ()) -> Canvas:
    """60 x 50 x 40 voxels (D, H, W) of 2 mm, z from -60, y from -50, x from -40 mm."""
    return Canvas(np.random.default_rng(3), (60, 50, 40), (2, 2, 2), (-60, -50, -40), Palette(), warp_mm, bend)


def volume_mm3(shape: Shape) -> float:
    return 8.0 * int(shape.inside.sum())


@pytest.mark.parametrize("turn", [(0, 0, 0), (30, -20, 45)])
def test_an_ellipsoid_has_its_volume_whichever_way_it_is_turned(turn):
    shape = canvas().ellipsoid((2, -3, 5), (16, 20, 28), turn)
    assert volume_mm3(shape) == pytest.approx(4 / 3 * np.pi * 16 * 20 * 28, rel=0.03)


def test_an_ellipsoid_lies_at_its_centre_in_body_coordinates():
    c = canvas()
    shape = c.ellipsoid((6, -8, 20), (10, 14, 24))
    found = [field[shape.box][shape.inside].mean() for field in (c.x, c.y, c.z)]
    assert found == pytest.approx([6, -8, 20], abs=0.5)


def test_a_turn_about_z_takes_the_long_axis_from_right_to_front():
    c = canvas()
    shape = c.ellipsoid((0, 0, 0), (30, 8, 8), (0, 0, 90))
    assert np.ptp(c.y[shape.box][shape.inside]) > 50 > 20 > np.ptp(c.x[shape.box][shape.inside])


def test_a_column_has_the_volume_of_its_sections():
    shape = canvas().column([(-30, 0, 0, 10, 15), (30, 4, 0, 10, 15)])
    assert volume_mm3(shape) == pytest.approx(np.pi * 10 * 15 * 60, rel=0.04)


def test_a_tube_has_the_volume_of_a_cylinder_with_round_ends():
    shape = canvas().tube(np.array([(0.7, 0.4, -30.3), (0.7, 0.4, 29.7)]), 8.0)
    assert volume_mm3(shape) == pytest.approx(np.pi * 8**2 * 60 + 4 / 3 * np.pi * 8**3, rel=0.04)


def test_a_tube_outside_the_canvas_paints_nothing():
    c = canvas()
    assert not c.paint("liver", c.tube(np.array([(0, 0, 400), (0, 0, 460)]), 8.0)).any()


def test_a_warped_canvas_finds_the_voxel_that_shows_a_point():
    c = canvas(warp_mm=4.0, bend=(np.zeros(60), np.linspace(-8, 8, 60), np.linspace(5, -5, 60)))
    at = np.array([(30, 25, 20), (12, 30, 8), (50, 14, 30)])
    points = np.stack([field[tuple(at.T)] for field in (c.x, c.y, c.z)], 1)
    np.testing.assert_allclose(c.voxel(points), at, atol=0.3)


@pytest.mark.parametrize("warp_mm", [0.0, 4.0])
def test_the_box_of_a_shape_leaves_nothing_of_it_outside(warp_mm):
    c = canvas(warp_mm)
    shape = c.ellipsoid((0, 0, 0), (14, 18, 22))
    everywhere = (c.x / 14) ** 2 + (c.y / 18) ** 2 + (c.z / 22) ** 2 < 1
    everywhere[shape.box] &= ~shape.inside
    assert everywhere.sum() <= 2  # voxels exactly on the surface


def test_bend_moves_the_spine_and_spares_the_front_of_the_belly():
    c = canvas(bend=(np.zeros(60), np.full(60, 10.0), np.zeros(60)))
    back, front = c.y[30, 0, 20], c.y[30, -1, 20]
    assert back == pytest.approx(-50 - 10, abs=1e-4)
    assert front == pytest.approx(48 - 10 * (1 - (23 / 95) ** 2 * (3 - 2 * 23 / 95)), abs=1e-3)


def test_noise_is_clipped_and_never_the_same_part_twice():
    c = canvas()
    first, second = c.noise(c.whole()), c.noise(c.whole())
    assert abs(first).max() <= NOISE_LIMIT
    assert (first != second).any()


def test_smooth_noise_has_unit_variance_and_varies_slowly():
    noise = smooth_noise(np.random.default_rng(0), (48, 48, 48), 10)
    assert noise.std() == pytest.approx(1, abs=0.25)
    assert abs(np.diff(noise, axis=0)).mean() < 0.25


def test_paint_returns_what_it_painted_and_respects_the_mask():
    c = canvas()
    shape = c.ellipsoid((0, 0, 0), (10, 10, 10))
    right = c.x[shape.box] > 0
    painted = c.paint("liver", shape, right)
    assert (painted == (shape.inside & right)).all()
    assert (c.tissue == c.palette["liver"]).sum() == painted.sum()
    assert (c.is_any(shape.box, "liver", "spleen") == painted).all()


def test_a_curve_goes_through_its_points_with_their_radii():
    points = np.array([(0, 0, 0), (10, 0, 0), (10, 20, 0)], float)
    line, radii = curve(points, (1, 2, 3), 0.5)
    for point, radius in zip(points, (1, 2, 3), strict=True):
        nearest = np.linalg.norm(line - point, axis=1).argmin()
        np.testing.assert_allclose(line[nearest], point, atol=0.3)
        assert radii[nearest] == pytest.approx(radius, abs=0.05)


def test_largest_keeps_one_part():
    mask = np.zeros((5, 5, 5), bool)
    mask[0, 0, :2] = mask[3, 3, :4] = True
    assert largest(mask).sum() == 4
