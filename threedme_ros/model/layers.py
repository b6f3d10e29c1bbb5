"""The small parts every branch is made of. All take and return (B, C, D, H, W)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def pointwise(x: Tensor, linear: nn.Linear) -> Tensor:
    """``linear`` on the channels of every voxel: a 1x1x1 convolution with a plain (out, in) weight."""
    return F.conv3d(x, linear.weight[:, :, None, None, None], linear.bias)


def space_to_depth(x: Tensor) -> Tensor:
    """(B, C, D, H, W) -> (B, C*8, D/2, H/2, W/2); each 2x2x2 block becomes channels, W fastest."""
    b, c, d, h, w = x.shape
    x = x.reshape(b * c, d // 2, 2, h // 2, 2, w // 2, 2)
    # (BC, D/2, 2, H/2, 2, W/2, 2) -> (BC, 2, 2, 2, D/2, H/2, W/2)
    return x.permute(0, 2, 4, 6, 1, 3, 5).reshape(b, c * 8, d // 2, h // 2, w // 2)


def depth_to_space(x: Tensor) -> Tensor:
    """(B, C*8, D, H, W) -> (B, C, 2D, 2H, 2W): the inverse of `space_to_depth`."""
    b, c, d, h, w = x.shape
    x = x.reshape(b * c // 8, 2, 2, 2, d, h, w)
    # (BC, 2, 2, 2, D, H, W) -> (BC, D, 2, H, 2, W, 2)
    return x.permute(0, 4, 1, 5, 2, 6, 3).reshape(b, c // 8, 2 * d, 2 * h, 2 * w)


def upsample(x: Tensor, factor: int = 2) -> Tensor:
    """Trilinear, outer voxel faces aligned."""
    return x if factor == 1 else F.interpolate(x, scale_factor=factor, mode="trilinear", align_corners=False)


class VoxelNorm(nn.BatchNorm3d):
    """Batch normalisation over the voxels of a window (Ioffe & Szegedy 2015, alg. 1), then frozen.

    Early in training the statistics are the window's own; `freeze_norms` then fixes them at their running means, and
    the rest of the training sees the network that is shipped: an affine map a channel, the same for a window, a padded
    volume and a whole volume, which an engine folds into the next convolution. (A norm over the channels of each voxel
    would be as local, but it scales away the intensity of a uniform patch, and learns several times more slowly here.)
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, momentum=0.02)


def freeze_norms(model: nn.Module) -> None:
    """Use, and no longer update, the running statistics of every `VoxelNorm`, until ``model.train()`` is called."""
    for module in model.modules():
        if isinstance(module, VoxelNorm):
            module.eval()


class ConvNormAct(nn.Sequential):
    """3x3x3 convolution, normalisation, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv3d(in_channels, out_channels, 3, padding=1, bias=False), VoxelNorm(out_channels), nn.ReLU()
        )


class ResidualBlock(nn.Module):
    """x + two 3x3x3 convolutions (He et al. 2016, fig. 2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvNormAct(channels, channels)
        self.second = nn.Conv3d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x))


class Downsample(nn.Sequential):
    """Disjoint ``factor``^3 blocks of voxels, projected: a strided convolution without overlap."""

    def __init__(self, in_channels: int, out_channels: int, factor: int = 2) -> None:
        super().__init__(nn.Conv3d(in_channels, out_channels, factor, stride=factor), VoxelNorm(out_channels))


def flatten_nodes(x: Tensor) -> Tensor:
    """(B, C, D, H, W) -> (B, D*H*W, C)."""
    return x.flatten(2).transpose(1, 2)


def unflatten_nodes(nodes: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """(B, D*H*W, C) -> (B, C, D, H, W)."""
    return nodes.transpose(1, 2).reshape(nodes.shape[0], -1, *shape)


def axis_mean(x: Tensor, axis: int, factor: int) -> Tensor:
    """Means of ``factor`` neighbours along ``axis``, which shrinks by it. Strided slices beat a reduction."""
    if factor == 1:
        return x
    return sum(x[(*[slice(None)] * axis, slice(first, None, factor))] for first in range(factor)) / factor


def block_mean(x: Tensor, factor: int) -> Tensor:
    """(B, C, D, H, W) -> (B, C, D/f, H/f, W/f): mean of disjoint blocks (torch has no bf16 avg_pool3d on the CPU)."""
    for axis in (2, 3, 4):
        x = axis_mean(x, axis, factor)
    return x
