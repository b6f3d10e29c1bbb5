"""Anatomy is bent without folding, organs grow by the factor asked, and the image goes with its labels."""

import math

import pytest
import torch

from threedme_ros.training.augment import WarpConfig, random_linear_map, warp
from threedme_ros.training.axis_filters import interpolated
from threedme_ros.training.deformation import (
    EXTRUDED,
    LEAST_JACOBIAN,
    REACH,
    OrganChange,
    bent_positions,
    flow,
    lattice_coordinates,
    least_jacobian,
    position_grid,
    random_velocity,
)

STRONG = WarpConfig(30, (0.75, 1.3), elastic_voxels=6.0, elastic_spacing_voxels=32, elastic_octaves=3)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def determinants(positions, shape):
    """Jacobian determinants of the interpolated map at every voxel's forward corner, by finite differences."""
    dense = interpolated(positions, shape).double()
    core = dense[:, :-1, :-1, :-1]
    steps = [dense[:, 1:, :-1, :-1] - core, dense[:, :-1, 1:, :-1] - core, dense[:, :-1, :-1, 1:] - core]
    return torch.linalg.det(torch.stack(steps, -1).permute(1, 2, 3, 0, 4))


def random_organs(generator):
    organs = []
    for _ in range(3):
        centre = torch.tensor([24.0, 28.0, 30.0]) + 8 * torch.randn(3, generator=generator)
        size = 3 + 12 * torch.rand(3, generator=generator)
        factor = math.exp(math.log(0.7) + math.log(2) * torch.rand((), generator=generator).item())
        organs.append(OrganChange(centre, size, factor, 8 * torch.rand(3, generator=generator) - 4))
    return organs


@pytest.mark.parametrize("shape", [(48, 56, 60), (13, 64, 64)])
def test_nothing_folds_over_many_seeds(shape):
    weakened = 0
    for seed in range(40):
        generator = seeded(seed)
        linear_map = random_linear_map(STRONG, generator)
        velocity = random_velocity(shape, 6.0, 32.0, 3, generator)
        positions = bent_positions(shape, (24.0, 28.0, 30.0), linear_map, velocity, random_organs(generator))
        affine = bent_positions(shape, (24.0, 28.0, 30.0), linear_map, None)
        weakened += torch.equal(positions, affine)
        assert determinants(positions, shape).min() > 0
    assert weakened < 4  # the guard is a last resort, not what keeps maps smooth


def test_a_map_too_wild_is_tamed_and_not_let_through():
    shape = (32, 32, 32)
    velocity = random_velocity(shape, 60.0, 16.0, 1, seeded(3))
    raw = lattice_coordinates(shape) + velocity  # not followed as a flow: it folds
    assert determinants(raw, shape).min() < 0 and least_jacobian(raw, shape) < 0
    positions = bent_positions(shape, (16.0, 16.0, 16.0), torch.eye(3), velocity)
    assert determinants(positions, shape).min() > LEAST_JACOBIAN


@pytest.mark.parametrize("seed", range(8))
def test_the_bound_lies_below_every_determinant(seed):
    shape = (17, 21, 25)
    positions = lattice_coordinates(shape) + random_velocity(shape, 3.0, 8.0, 1, seeded(seed))
    assert least_jacobian(positions, shape) <= determinants(positions, shape).min() + 1e-5
    assert least_jacobian(lattice_coordinates(shape), shape) == pytest.approx(1, abs=1e-5)


def test_following_a_steady_field_moves_by_it_and_back_again():
    shape = (33, 33, 33)
    steady = torch.tensor([2.0, -1.0, 0.5]).view(3, 1, 1, 1).expand_as(lattice_coordinates(shape)).contiguous()
    torch.testing.assert_close(flow(steady, shape), steady, atol=1e-5, rtol=0)
    velocity = random_velocity(shape, 3.0, 16.0, 1, seeded(5))
    there = lattice_coordinates(shape) + flow(velocity, shape)
    half_extent = torch.tensor([(n - 1) / 2 for n in shape]).view(3, 1, 1, 1)
    grid = (there / half_extent).flip(0).permute(1, 2, 3, 0)[None]
    back = torch.nn.functional.grid_sample(
        flow(-velocity, shape)[None], grid, padding_mode="border", align_corners=True
    )[0]
    inner = (slice(None), *[slice(2, -2)] * 3)
    # the flow of the opposite field is the inverse map; the lattice costs some of it
    assert (there + back - lattice_coordinates(shape))[inner].abs().mean() < 0.15 * flow(velocity, shape).abs().mean()


def ball(shape, centre, radius):
    axes = torch.meshgrid(*[torch.arange(float(n)) for n in shape], indexing="ij")
    return sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True)) < radius**2


@pytest.mark.parametrize("factor", [0.7, 0.85, 1.2, 1.4])
def test_an_organ_changes_its_volume_by_the_cube_of_the_factor_and_its_place_by_the_shift(factor):
    shape, centre, radius = (64, 64, 64), (30.0, 33.0, 31.0), 10.0
    organ = ball(shape, centre, radius)
    shift = torch.tensor([2.0, -3.0, 1.0])
    change = OrganChange(torch.tensor(centre), torch.full((3,), radius), factor, shift)
    positions = bent_positions(shape, (31.5, 31.5, 31.5), torch.eye(3), None, [change])
    image, labels = warp(organ.float() * 2 - 1, organ.to(torch.uint8), position_grid(positions, shape, shape))
    assert labels.sum().item() / organ.sum().item() == pytest.approx(factor**3, rel=0.08)
    where = (labels > 0).nonzero().float().mean(0)
    torch.testing.assert_close(where, torch.tensor(centre) + shift, atol=0.3, rtol=0)
    assert ((image > 0) == (labels > 0)).float().mean() > 0.995  # the image's ball is where its label is


def test_beyond_its_reach_a_change_changes_nothing():
    change = OrganChange(torch.full((3,), 30.0), torch.full((3,), 6.0), 1.3, torch.tensor([1.0, 1.0, 0.0]))
    positions = lattice_coordinates((61, 61, 61)) + 30
    moved = change(positions)
    far = (positions - change.centre.view(3, 1, 1, 1) - 1).norm(dim=0) > 6 * 1.3 * REACH + 3
    assert far.any() and torch.equal(moved[:, far], positions[:, far])
    assert not torch.equal(moved, positions)


def test_left_stays_left_whatever_is_drawn():
    shape = (40, 48, 56)
    labels = torch.zeros(shape, dtype=torch.uint8)
    labels[ball(shape, (20, 24, 14), 7)], labels[ball(shape, (20, 24, 42), 7)] = 1, 2  # 2 lies right: W grows to R
    seen = 0
    for seed in range(25):
        generator = seeded(seed)
        linear_map = random_linear_map(STRONG, generator)
        velocity = random_velocity(shape, 6.0, 32.0, 3, generator)
        positions = bent_positions(shape, (20.0, 24.0, 28.0), linear_map, velocity, random_organs(generator))
        _, moved = warp(torch.zeros(shape), labels, position_grid(positions, shape, shape))
        where = [(moved == side).nonzero()[:, 2].float() for side in (1, 2)]
        if min(map(len, where)) > 50:
            assert where[0].mean() < where[1].mean()
            seen += 1
    assert seen > 15


def test_the_border_is_repeated_only_just_beyond_the_scan():
    positions = lattice_coordinates((33, 9, 9)) + torch.tensor([8.0, 4.0, 4.0]).view(3, 1, 1, 1)  # from -8 along D
    labels = torch.full((33, 9, 9), 3, dtype=torch.uint8)
    _, moved = warp(torch.zeros(33, 9, 9), labels, position_grid(positions, (33, 9, 9), (33, 9, 9)))
    known = moved[:, 4, 4] > 0
    assert not known[0] and known[8 - int(EXTRUDED) + 2 :].all()  # to within half a cell of the lattice
