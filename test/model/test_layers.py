import torch

from threedme_ros.model.layers import ChannelNorm, block_mean, depth_to_space, space_to_depth, upsample


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


def test_channel_norm_normalises_each_voxel_alone():
    x = torch.randn(1, 16, 2, 3, 4)
    y = ChannelNorm(16)(x)
    expected = (x - x.mean(1, keepdim=True)) / (x.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(y, expected)


def test_upsample_keeps_a_linear_ramp_at_half_voxel_positions():
    ramp = torch.arange(4.0).reshape(1, 1, 1, 1, 4)
    # centres of the fine voxels lie at -0.25, 0.25, 0.75, ... coarse voxels; the border is extended
    assert upsample(ramp)[0, 0, 0, 0].tolist() == [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]


def test_block_mean_averages_disjoint_blocks():
    x = torch.randn(1, 2, 4, 2, 6)
    torch.testing.assert_close(block_mean(x, 2), torch.nn.functional.avg_pool3d(x, 2))
