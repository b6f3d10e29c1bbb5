"""Windows keep image and labels together, and never exchange left and right."""

import math

import pytest
import torch

from threedme_ros.training.augment import (
    WarpConfig,
    random_displacement,
    random_linear_map,
    sampling_grid,
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


def test_window_is_cut_where_it_is_asked_for_and_has_no_label_outside():
    image = torch.zeros(8, 9, 10)
    image[3, 4, 5] = 1
    grid = sampling_grid((8, 9, 10), (4, 4, 4), (3.5, 4.5, 9.5), torch.eye(3))  # voxels 2..5, 3..6, 8..11
    moved, labels = warp(image, torch.full((8, 9, 10), 3, dtype=torch.uint8), grid)
    assert labels[..., 2:].eq(0).all() and labels[..., :2].eq(3).all()
    assert moved.eq(0).all()  # the border is repeated, not blended with a padding
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
def test_no_map_mirrors_and_none_turns_further_than_asked(seed):
    matrix = random_linear_map(WarpConfig(rotation_deg=30, scale=(1.0, 1.0)), seeded(seed))
    assert torch.linalg.det(matrix).item() == pytest.approx(1, abs=1e-5)
    assert (matrix.diagonal() > 0).all()  # right stays right, front stays front, up stays up
    angle = math.degrees(math.acos(min(1.0, (matrix.trace().item() - 1) / 2)))
    assert angle <= 30.01


def test_a_limited_tilt_leaves_the_axial_plane_almost_level():
    config = WarpConfig(rotation_deg=30, scale=(1.0, 1.0))
    leaning = [random_linear_map(config, seeded(seed), 0.05)[0, 0].item() for seed in range(30)]
    free = [random_linear_map(config, seeded(seed))[0, 0].item() for seed in range(30)]
    assert min(leaning) > math.cos(0.051) > min(free)


def test_larger_scale_shows_more_of_the_scan():
    grid = sampling_grid((9, 9, 9), (9, 9, 9), (4.0, 4.0, 4.0), 2 * torch.eye(3))
    assert grid.min() == pytest.approx(-2) and grid.max() == pytest.approx(2)


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("rotation_deg", 120, "rotation_deg 120: expected an angle"),
        ("scale", (1.2, 0.8), r"scale \(1.2, 0.8\): expected"),
        ("elastic_voxels", -1, "elastic_voxels -1"),
        ("elastic_octaves", 0, "elastic_octaves 0: expected an integer"),
        ("share", 1.5, "share 1.5: expected one from 0 to 1"),
    ],
)
def test_a_bad_warp_is_named(field, value, named):
    with pytest.raises(ValueError, match=named):
        WarpConfig(**{field: value})
