"""Each artefact leaves the trace it is known for, where it belongs."""

import pytest
import torch

from threedme_ros.training.artefacts import (
    coil_falloff,
    cone_beam,
    ghosts,
    metal,
    polar,
    random_artefact,
    rings,
    table,
    uneven_slices,
)
from threedme_ros.training.tissues import AIR


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def body():
    """A box of soft tissue with air around it, and its tissue map."""
    tissue = torch.full((12, 40, 48), AIR, dtype=torch.uint8)
    tissue[:, 14:32, 8:40] = 5
    return torch.where(tissue == AIR, -1.0, 0.0), tissue


def test_polar_angles_and_radii_of_four_directions():
    radius, angle = polar((1, 5, 5), (2.0, 2.0))
    assert radius[2, 4] == 2 and radius[0, 2] == 2
    assert (
        angle[2, 4] == 0 and angle[4, 2] == pytest.approx(torch.pi / 2) and angle[0, 2] == pytest.approx(1.5 * torch.pi)
    )


def test_metal_is_white_and_streaks_only_its_own_slices(body):
    image, _ = body
    for seed in range(10):
        changed = (metal(image, seeded(seed)) - image).abs().flatten(1).amax(1) > 0
        assert 1 <= changed.sum() < 12
        assert metal(image, seeded(seed)).max() > 1


def test_cone_beam_is_one_pattern_for_all_slices_and_cups(body):
    flat = torch.zeros(6, 40, 48)
    result = cone_beam(flat, seeded(3))
    assert torch.equal(result[0], result[5]) and result[0].std() > 0.01


def test_rings_run_around_the_middle():
    ring = rings(torch.zeros(8, 64, 64), seeded(2))
    assert ring.abs().max() > 0.01
    slice_ = ring[ring.abs().flatten(1).amax(1).argmax()]
    best = min(
        sum(slice_[radius.long() == r].std().item() for r in range(4, 20))
        for h in torch.linspace(0.4, 0.6, 14) for w in torch.linspace(0.4, 0.6, 14)
        for radius in [polar((1, 64, 64), (64 * h.item(), 64 * w.item()))[0]]
    )  # fmt: skip
    assert best < 0.6 * 16 * slice_.std()  # around some middle, all of a radius is alike


def test_a_table_lies_behind_the_body_and_in_air_alone(body):
    image, tissue = body
    for seed in range(10):
        added = table(image, tissue, seeded(seed)) - image
        assert added[tissue != AIR].eq(0).all()
        assert (added.abs() > 0).any()
        rows = added[:, :14, 20:28].abs().flatten(2).sum((0, 2))
        assert rows.sum() > 0 or added[:, :14].sum() > 0  # H = A: behind is below


def test_ghosts_are_shifted_copies(body):
    image, _ = body
    ghost = ghosts(image, seeded(1)) - image
    assert ghost.min() >= 0 and ghost[image == -1].max() > 0


def test_uneven_slices_keep_each_slice_proportional(body):
    image, _ = body
    ratio = (uneven_slices(image, seeded(4)) + 1)[:, 14:32, 8:40] / (image + 1)[:, 14:32, 8:40]
    assert torch.allclose(ratio.flatten(1).amax(1), ratio.flatten(1).amin(1)) and ratio.flatten(1).amax(1).std() > 0.005


def test_a_coil_gets_darker_away_from_it(body):
    flat = torch.zeros(20, 20, 20)
    for seed in range(6):
        result = coil_falloff(flat, seeded(seed))
        steps = [result.diff(dim=axis).mean().item() for axis in range(3)]
        assert sum(abs(step) > 1e-3 for step in steps) == 1 and result.max() <= 1e-6 and result.min() > -1


@pytest.mark.parametrize("modality", ["ct", "mr"])
def test_every_draw_is_finite_and_repeats(body, modality):
    image, tissue = body
    for seed in range(25):
        first = random_artefact(image.clone(), tissue, modality, seeded(seed))
        assert torch.isfinite(first).all() and first.shape == image.shape
        assert torch.equal(first, random_artefact(image.clone(), tissue, modality, seeded(seed)))
