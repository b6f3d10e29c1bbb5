"""The local branch: graph convolutions on the voxel lattice and on nearest neighbours in feature space.

Each layer here is the dense form that runs on a full lattice. `threedme_ros.model.voxel_graph_pyg` defines the same
layers with PyTorch Geometric on any graph (the reference); one state_dict serves both and a test holds them equal.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from threedme_ros.model.config import ModelConfig
from threedme_ros.model.layers import (
    Downsample,
    VoxelNorm,
    block_mean,
    flatten_nodes,
    pointwise,
    unflatten_nodes,
    upsample,
)


def box_sum(x: Tensor) -> Tensor:
    """Sum over the 3x3x3 box around each voxel, nothing outside the lattice. (B, C, D, H, W) -> same.

    Three passes of shifted additions: exact in every engine, with a gradient as cheap as itself.
    """
    for dim in (2, 3, 4):
        pad = [0] * 6
        pad[2 * (4 - dim)] = pad[2 * (4 - dim) + 1] = 1
        padded = F.pad(x, pad)
        n = x.shape[dim]
        x = x + padded.narrow(dim, 0, n) + padded.narrow(dim, 2, n)
    return x


class LatticeMean(nn.Module):
    """GraphSAGE with mean aggregation (Hamilton et al. 2017, alg. 1) over the 26 neighbours of a voxel.

    y_i = W_self x_i + W_near mean_{j in N(i)} x_j + b. The dense form is a box sum less the voxel itself, over the
    number of neighbours that exist.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.own = nn.Linear(channels, channels)
        self.near = nn.Linear(channels, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        ones = torch.ones(1, 1, *x.shape[2:], dtype=x.dtype, device=x.device)
        neighbours = (box_sum(ones) - 1).clamp(min=1)  # 26 inside, 7 in a corner; a lone voxel has none
        return pointwise(x, self.own) + pointwise((box_sum(x) - x) / neighbours, self.near)


class LatticeEdge(nn.Module):
    """EdgeConv with a linear edge function and max aggregation (Wang et al. 2019, eq. 8), self-loop included.

    y_i = max_{j in N(i) + i} (W_own x_i + W_edge (x_j - x_i)) + b = (W_own - W_edge) x_i + max_j W_edge x_j + b:
    on a lattice a max-pooling.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.own = nn.Linear(channels, channels)
        self.edge = nn.Linear(channels, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        edge = pointwise(x, self.edge)
        return pointwise(x, self.own) - edge + F.max_pool3d(edge, 3, stride=1, padding=1)


class FeatureEdge(nn.Module):
    """EdgeConv as in `LatticeEdge`, over the k nearest nodes in feature space (the node itself among them)."""

    def __init__(self, channels: int, k: int) -> None:
        super().__init__()
        self.k = k
        self.own = nn.Linear(channels, channels)
        self.edge = nn.Linear(channels, channels, bias=False)

    def forward(self, nodes: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        b, n, c = nodes.shape
        index = nearest_nodes(nodes, self.k)
        edge = self.edge(nodes)
        offset = torch.arange(b, device=nodes.device).reshape(b, 1, 1) * n
        near = F.embedding(index + offset, edge.reshape(b * n, c))  # (B, N, k, C): a Gather along one axis
        return self.own(nodes) - edge + near.amax(dim=2)


def nearest_nodes(nodes: Tensor, k: int) -> Tensor:
    """Indices (B, N, min(k, N)) of the nodes with the smallest squared distance in feature space. No gradient."""
    nodes = nodes.detach().float()  # a half-precision network would take other nodes for the nearest
    square = nodes.square().sum(-1)
    closeness = 2 * nodes @ nodes.transpose(1, 2) - square[:, None, :]  # less |x_i|^2, the same for a whole row
    return closeness.topk(min(k, nodes.shape[1]), dim=-1).indices


class GraphBlock(nn.Module):
    """x + mean layer, then x + edge layer, each after a norm and followed by ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.mean = VoxelNorm(channels), LatticeMean(channels)
        self.norm2, self.edge = VoxelNorm(channels), LatticeEdge(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x + F.relu(self.mean(self.norm1(x)))
        return x + F.relu(self.edge(self.norm2(x)))


class VoxelGraphBranch(nn.Module):
    """Stride-4 features (B, C4, D/4, H/4, W/4) -> (stride-4 features, stride-8 features (B, C8, D/8, H/8, W/8))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        _, c4, c8 = config.channels
        self.blocks4 = nn.Sequential(*[GraphBlock(c4) for _ in range(config.graph_layers)])
        self.down = Downsample(c4, c8)
        self.blocks8 = nn.Sequential(*[GraphBlock(c8) for _ in range(config.graph_layers)])
        self.norm16 = VoxelNorm(c8)
        self.feature_edge = FeatureEdge(c8, config.knn)

    def forward(self, x4: Tensor) -> tuple[Tensor, Tensor]:
        x4 = self.blocks4(x4)
        x8 = self.blocks8(self.down(x4))
        x16 = self.norm16(block_mean(x8, 2))  # 2,048 nodes for 256 x 256 x 128 voxels
        nodes = F.relu(self.feature_edge(flatten_nodes(x16)))
        return x4, x8 + upsample(unflatten_nodes(nodes, tuple(x16.shape[2:])))
