import torch

from threedme_ros.model.layers import (
    VoxelNorm,
    axis_mean,
    block_mean,
    depth_to_space,
    freeze_norms,
    space_to_depth,
    upsample,
)


def test_space_to_depth_puts_the_block_into_channels_w_fastest():
    x = torch.arange(64.0).reshape(1, 1, 4, 4, 4)
    y = space_to_depth(x)
    assert y.shape == (1, 8, 2, 2, 2)
    # the first block: voxels (d, h, w) in {0, 1}^3, value 16 d + 4 h + w
    assert y[0, :, 0, 0, 0].tolist() == [0, 1, 4, 5, 16, 17, 20, 21]
    assert y[0, 0, 1, 0, 1].item() == x[0, 0, 2, 0, 2].item()


def test_depth_to_space_undoes_space_to_depth():
    x = torch.randn(2, 3, 4, 6, 8)
    assert torch.equal(depth_to_space(space_to_depth(x)), x)


def test_frozen_norms_are_one_affine_map_and_learn_no_more_statistics():
    layer = torch.nn.Sequential(VoxelNorm(2))
    layer.train()
    for _ in range(400):  # the running statistics reach those of the data: mean 3, standard deviation 2
        layer(torch.randn(1, 2, 8, 8, 8) * 2 + 3)
    freeze_norms(layer)
    before = layer[0].running_mean.clone()
    answer = layer(torch.tensor([1.0, 3.0, 5.0]).expand(1, 2, 1, 1, 3))
    torch.testing.assert_close(answer[0, 0, 0, 0], torch.tensor([-1.0, 0.0, 1.0]), rtol=0, atol=0.1)
    assert torch.equal(layer[0].running_mean, before)


def test_upsample_keeps_a_linear_ramp_at_half_voxel_positions():
    ramp = torch.arange(4.0).reshape(1, 1, 1, 1, 4)
    # centres of the fine voxels lie at -0.25, 0.25, 0.75, ... coarse voxels; the border is extended
    assert upsample(ramp)[0, 0, 0, 0].tolist() == [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]


def test_block_mean_averages_disjoint_blocks():
    x = torch.randn(1, 2, 4, 2, 6)
    torch.testing.assert_close(block_mean(x, 2), torch.nn.functional.avg_pool3d(x, 2))


def test_axis_mean_averages_neighbours_along_one_axis():
    x = torch.arange(12.0).reshape(1, 1, 1, 2, 6)
    assert axis_mean(x, 4, 3)[0, 0, 0].tolist() == [[1, 4], [7, 10]]
    assert axis_mean(x, 3, 2)[0, 0, 0].tolist() == [[3, 4, 5, 6, 7, 8]]
