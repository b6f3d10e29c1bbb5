"""Filters along an axis are exactly the averages and interpolations they claim to be."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter1d

from threedme_ros.training.axis_filters import (
    apply_along,
    between_slices,
    from_control_points,
    gaussian,
    interpolated,
    slices,
)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_filter_acts_along_its_axis_alone(axis):
    image = torch.randn(5, 6, 7, generator=torch.Generator().manual_seed(0))
    matrix = torch.randn(3, image.shape[axis], generator=torch.Generator().manual_seed(1))
    expected = np.moveaxis(np.tensordot(matrix.numpy(), image.numpy(), (1, axis)), 0, axis)
    np.testing.assert_allclose(apply_along(image, matrix, axis).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("sigma", [0.4, 1.2, 2.0])
def test_gaussian_is_scipys(sigma):
    image = torch.randn(3, 21, 4, generator=torch.Generator().manual_seed(0))
    radius = int(np.ceil(2.5 * sigma))
    expected = gaussian_filter1d(image.numpy(), sigma, axis=1, mode="nearest", radius=radius)
    np.testing.assert_allclose(apply_along(image, gaussian(21, sigma), 1).numpy(), expected, atol=1e-5)


def test_slices_are_the_means_of_the_voxels_they_cover():
    ramp = torch.arange(12.0)
    assert (slices(12, 3) @ ramp).tolist() == pytest.approx([1, 4, 7, 10])
    # eight slices of one and a half voxels: the first is all of voxel 0 and half of voxel 1
    assert slices(12, 1.5)[0, :3].tolist() == pytest.approx([2 / 3, 1 / 3, 0])
    # overlapping slices of six voxels every three, and gaps between slices of one
    assert (slices(12, 3, 2.0) @ ramp).tolist() == pytest.approx([16 / 9, 4, 7, 83 / 9])  # cut at the ends
    assert (slices(12, 3, 1 / 3) @ ramp).tolist() == pytest.approx([1, 4, 7, 10])
    assert (slices(12, 3, 1 / 3) > 0).sum() == 4
    assert (slices(13, 2.6) @ torch.ones(13)).tolist() == pytest.approx([1.0] * 5)


@pytest.mark.parametrize("count", [4, 5, 12])
def test_back_from_slices_is_torchs_interpolation(count):
    values = torch.randn(1, 1, count, generator=torch.Generator().manual_seed(count))
    linear = F.interpolate(values, size=12, mode="linear", align_corners=False)[0, 0]
    torch.testing.assert_close(between_slices(12, count) @ values[0, 0], linear, atol=1e-6, rtol=0)
    if count != 5:  # halfway between two slices either one is nearest
        nearest = F.interpolate(values, size=12, mode="nearest-exact")[0, 0]
        torch.testing.assert_close(between_slices(12, count, nearest=True) @ values[0, 0], nearest)


def test_control_points_are_interpolated_as_torch_does():
    control = torch.randn(3, 4, 2, 5, generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(control[None], size=(9, 7, 11), mode="trilinear", align_corners=True)[0]
    torch.testing.assert_close(interpolated(control, (9, 7, 11)), expected, atol=1e-5, rtol=0)
    assert from_control_points(1, 2).tolist() == [[1, 0]]
