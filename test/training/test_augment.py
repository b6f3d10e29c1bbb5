"""Windows keep image and labels together, and never exchange left and right."""

import pytest
import torch

from threedme_ros.training.augment import (
    PADDING,
    WarpConfig,
    random_acquisition,
    random_displacement,
    random_field_of_view,
    random_linear_map,
    sampling_grid,
    smooth,
    thick_slices,
    warp,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_identity_grid_returns_the_same_voxels():
    image = torch.rand(5, 6, 7, generator=seeded())
    labels = torch.randint(0, 9, (5, 6, 7), generator=seeded()).to(torch.uint8)
    grid = sampling_grid((5, 6, 7), (5, 6, 7), (2.0, 2.5, 3.0), torch.eye(3))
    moved, nearest = warp(image, labels, grid)
    torch.testing.assert_close(moved, image, atol=1e-5, rtol=0)
    assert torch.equal(nearest, labels)


def test_window_is_cut_where_it_is_asked_for_and_padded_outside():
    image = torch.zeros(8, 9, 10)
    image[3, 4, 5] = 1
    grid = sampling_grid((8, 9, 10), (4, 4, 4), (3.5, 4.5, 9.5), torch.eye(3))  # voxels 2..5, 3..6, 8..11
    moved, labels = warp(image, torch.full((8, 9, 10), 3, dtype=torch.uint8), grid)
    assert moved[..., 2:].eq(PADDING).all() and labels[..., 2:].eq(0).all()
    assert moved[..., :2].eq(0).all() and labels[..., :2].eq(3).all()
    grid = sampling_grid((8, 9, 10), (4, 4, 4), (3.5, 4.5, 5.5), torch.eye(3))
    assert warp(image, labels.new_zeros(8, 9, 10), grid)[0][1, 1, 1] == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_warp_moves_image_and_label_to_the_same_place(seed):
    d, h, w = torch.meshgrid(torch.arange(24.0), torch.arange(28.0), torch.arange(32.0), indexing="ij")
    ball = (d - 9) ** 2 + (h - 15) ** 2 + (w - 20) ** 2 < 5**2
    config = WarpConfig()
    grid = sampling_grid(
        ball.shape, (24, 24, 32), (11.0, 13.0, 16.0), random_linear_map(config, seeded(seed)),
        random_displacement((24, 24, 32), config, seeded(seed + 100)),
    )  # fmt: skip
    image, labels = warp(torch.where(ball, 1.0, -1.0), ball.to(torch.uint8), grid)
    assert labels.sum() > 100
    agreement = ((image > 0) == labels.bool()).float().mean()
    assert agreement > 0.99


@pytest.mark.parametrize("seed", range(20))
def test_no_map_mirrors(seed):
    config = WarpConfig(rotation_deg=20)
    matrix = random_linear_map(config, seeded(seed))
    assert torch.linalg.det(matrix) > 0
    assert (matrix.diagonal() > 0).all()  # right stays right, front stays front, up stays up


def test_larger_scale_shows_more_of_the_scan():
    grid = sampling_grid((9, 9, 9), (9, 9, 9), (4.0, 4.0, 4.0), 2 * torch.eye(3))
    assert grid.min() == pytest.approx(-2) and grid.max() == pytest.approx(2)


def test_smooth_keeps_the_sum_of_an_impulse_and_is_a_gaussian():
    from scipy.ndimage import gaussian_filter1d

    impulse = torch.zeros(3, 21, 4)
    impulse[1, 10, 2] = 1
    expected = gaussian_filter1d(impulse.numpy(), 1.2, axis=1, mode="nearest", radius=3)
    torch.testing.assert_close(smooth(impulse, 1.2, 1), torch.from_numpy(expected), atol=1e-6, rtol=0)


def test_thick_slices_repeat_along_their_axis_only():
    image = torch.randn(12, 5, 6, generator=seeded())
    thick = thick_slices(image, 3.0, 0, nearest=True)
    assert torch.equal(thick[0], thick[2]) and not torch.equal(thick[2], thick[3])


def test_acquisition_is_repeatable_and_stays_in_range():
    image = torch.rand(8, 9, 10, generator=seeded()) * 2 - 1
    first = random_acquisition(image.clone(), seeded(3), 1.5)
    assert torch.equal(first, random_acquisition(image.clone(), seeded(3), 1.5))
    assert first.min() >= -1 and first.max() <= 1 and torch.isfinite(first).all()


def test_field_of_view_keeps_a_slab_and_half_of_the_plane():
    for seed in range(20):
        seen = random_field_of_view((12, 10, 10), seeded(seed), 1.0)
        assert seen.any(2).any(1).sum() >= 6 and seen.any(0).any(1).sum() >= 4 and seen.any(0).any(0).sum() >= 4
    assert random_field_of_view((12, 10, 10), seeded(0), 0.0) is None
