import pytest
import torch
from scipy.ndimage import map_coordinates

from threedme_ros.model.plane_attention import PLANES, PlaneAttention, slice_batch

SHAPE = (4, 6, 8)


@pytest.mark.parametrize("plane", PLANES)
def test_slice_batch_repeats_along_the_normal(plane):
    x = torch.randn(1, 2, *SHAPE)
    n = SHAPE[plane]
    doubled = slice_batch(x, plane, 2 * n)
    first, second = x.select(plane + 2, 0), x.select(plane + 2, 1)
    assert torch.equal(doubled[:, 0], first)
    assert torch.equal(doubled[:, 1], first)
    assert torch.equal(doubled[:, 2], second)


def test_a_finer_level_is_averaged_over_the_slices_that_share_a_query_slice():
    layer = PlaneAttention(4, (3,), heads=2, points=2)
    x = torch.randn(1, 3, 8, 12, 16)
    for plane, values in zip(PLANES, layer._values(x, layer.value[0], [4, 6, 8]), strict=True):
        whole = layer.value[0](x.movedim(1, -1)).movedim(-1, 1)
        first, second = (whole.select(plane + 2, n) for n in (0, 1))
        torch.testing.assert_close(values.select(plane + 2, 0), (first + second) / 2)


def test_the_output_equals_sampling_point_by_point():
    torch.manual_seed(0)
    heads, points, dim = 2, 3, 4
    layer = PlaneAttention(dim, (dim,), heads, points).double()
    for linear in (layer.offset, layer.weight):
        torch.nn.init.normal_(linear.weight, std=0.3)
    query = torch.randn(1, dim, *SHAPE, dtype=torch.float64)
    level = torch.randn(1, dim, *SHAPE, dtype=torch.float64)
    answer = layer(query, [level])

    at = (2, 3, 5)
    value = layer.value[0](level[0].permute(1, 2, 3, 0)).permute(3, 0, 1, 2).detach().numpy()
    q = query[0, :, *at]
    offsets = layer.offset(q).reshape(heads, 3, points, 2).detach().numpy()
    weights = layer.weight(q).reshape(heads, -1).softmax(-1).reshape(heads, 3, points).detach().numpy()
    expected = torch.zeros(dim, dtype=torch.float64)
    for head in range(heads):
        for plane in PLANES:
            rows, columns = (axis for axis in range(3) if axis != plane)
            for point in range(points):
                place = list(at)
                place[columns] += offsets[head, plane, point, 0]
                place[rows] += offsets[head, plane, point, 1]
                for c in (2 * head, 2 * head + 1):
                    sample = map_coordinates(value[c], [[p] for p in place], order=1, mode="grid-constant")
                    expected[c] += weights[head, plane, point] * sample[0]
    torch.testing.assert_close(answer[0, :, *at], layer.out(expected), rtol=0, atol=1e-5)


def test_other_levels_are_sampled_at_the_same_place():
    """A value that is its own coordinate: with offsets at zero every level answers with the query's position."""
    layer = PlaneAttention(3, (3, 3, 3), heads=1, points=1)
    torch.nn.init.zeros_(layer.offset.bias)
    for linear in (*layer.value, layer.out):
        torch.nn.init.eye_(linear.weight)
        torch.nn.init.zeros_(linear.bias)

    def coordinates(shape):
        axes = [(torch.arange(n) + 0.5) / n for n in shape]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]

    levels = [coordinates([n * f for n in SHAPE]) for f in (2, 1)] + [coordinates([n // 2 for n in SHAPE])]
    answer = layer(torch.zeros(1, 3, *SHAPE), levels)
    # the coarse level is repeated along each plane's normal and zero-padded at its rim: look at the middle only
    middle = (slice(None), slice(None), slice(1, -1), slice(1, -1), slice(1, -1))
    torch.testing.assert_close(answer[middle], coordinates(SHAPE)[middle], rtol=0, atol=0.03)
