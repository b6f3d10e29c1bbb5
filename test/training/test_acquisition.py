"""Resolution, sharpness, shading and noise do what they are named after."""

import pytest
import torch

from threedme_ros.training.acquisition import (
    correlated,
    noisy,
    random_acquisition,
    random_resolution,
    shaded,
    sharpened,
    thick_slices,
)
from threedme_ros.training.axis_filters import apply_along


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def image():
    return torch.rand(16, 18, 20, generator=seeded()) * 2 - 1


def test_thick_slices_are_the_means_of_the_voxels_they_cover(image):
    thick = apply_along(image, thick_slices(16, 2.0, 1.0, nearest=True), 0)
    expected = image.view(8, 2, 18, 20).mean(1).repeat_interleave(2, 0)
    torch.testing.assert_close(thick, expected, atol=1e-6, rtol=0)


def test_overlapping_slices_average_further_and_gaps_leave_voxels_out():
    step = (torch.arange(12.0) == 5).float()
    seen = {thickness: thick_slices(12, 3.0, thickness, nearest=True) @ step for thickness in (0.3, 1.0, 2.0)}
    assert seen[1.0].tolist() == pytest.approx([0] * 3 + [1 / 3] * 3 + [0] * 6)
    # slices of 6 voxels every 3: the slice above sees voxel 5, too
    assert seen[2.0].tolist() == pytest.approx([0] * 3 + [1 / 6] * 6 + [0] * 3)
    # slices of 0.9 voxels in the middle of 3: voxel 5 lies between two of them
    assert seen[0.3].abs().sum() == 0


def test_filters_keep_a_constant_and_make_an_image_smoother(image):
    for seed in range(30):
        constant = random_resolution(torch.full((10, 12, 14), 0.3), seeded(seed), 1.0, 2.7)
        torch.testing.assert_close(constant, torch.full((10, 12, 14), 0.3), atol=1e-5, rtol=0)
        assert random_resolution(image, seeded(seed), 1.0, 2.7).std() < image.std()
    assert torch.equal(random_resolution(image, seeded(), 0.0, 2.7), image)


def test_sharpening_overshoots_at_an_edge_and_leaves_flat_parts():
    edge = torch.zeros(16, 16, 16)
    edge[..., 8:] = 1
    sharp = sharpened(edge, 1.0, 1.0)
    assert sharp.max() > 1.15 and sharp.min() < -0.15
    torch.testing.assert_close(sharp[..., :3], edge[..., :3], atol=1e-4, rtol=0)


def test_shading_is_smooth_and_leaves_black_black():
    image = torch.zeros(24, 24, 24)
    image[:, :, :4] = -1
    shade = shaded(image, 0.2, seeded(1))
    assert shade[:, :, :4].eq(-1).all()
    assert shade[:, :, 4:].std() > 0.03 and shade[:, :, 4:].diff(dim=0).abs().max() < 0.1


def test_correlated_noise_keeps_its_variance_and_joins_neighbours():
    noise = torch.randn(48, 48, 48, generator=seeded())
    smooth = correlated(noise.clone(), (0.0, 0.0, 2.0))
    inner = smooth[:, :, 8:-8]
    assert inner.std().item() == pytest.approx(1, abs=0.03)
    assert (inner[..., 1:] * inner[..., :-1]).mean() > 0.8 and abs((inner[1:] * inner[:-1]).mean()) < 0.05


def test_noise_of_a_magnitude_image_lifts_black():
    black = torch.full((24, 24, 24), -1.0)
    lifted = [noisy(black, 0.1, "mr", seeded(seed)).mean().item() + 1 for seed in range(12)]
    # Rayleigh: sqrt(pi / 2) of the standard deviation; the others stay black on average
    assert all(abs(x - 0.1253) < 0.004 or abs(x) < 0.01 for x in lifted)
    assert any(x > 0.1 for x in lifted) and any(x < 0.01 for x in lifted)
    assert all(abs(noisy(black, 0.1, "ct", seeded(seed)).mean() + 1) < 0.01 for seed in range(12))


@pytest.mark.parametrize("modality", ["ct", "mr"])
def test_acquisition_is_repeatable_stays_in_range_and_can_be_switched_off(image, modality):
    for seed in range(15):
        first = random_acquisition(image.clone(), seeded(seed), 1.5, modality)
        assert torch.equal(first, random_acquisition(image.clone(), seeded(seed), 1.5, modality))
        assert first.min() >= -1 and first.max() <= 1 and torch.isfinite(first).all()
        assert torch.equal(random_acquisition(image.clone(), seeded(seed), 0.0, modality), image)
