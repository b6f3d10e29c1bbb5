"""The layers of `voxel_graph` with PyTorch Geometric message passing: the reference, and the form for any graph.

Nodes are (N, C), edges (2, E) from j to i. Parameters carry the same names and shapes as the dense layers'. Never
exported: ONNX and TensorRT get the scatter of message passing wrong or refuse it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

try:
    from torch_geometric.nn import MessagePassing
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("the reference graph layers need torch-geometric: pip install torch-geometric") from error


class GraphMean(MessagePassing):
    """`LatticeMean` on any graph: y_i = W_self x_i + W_near mean_j x_j + b."""

    def __init__(self, channels: int) -> None:
        super().__init__(aggr="mean")
        self.own = nn.Linear(channels, channels)
        self.near = nn.Linear(channels, channels, bias=False)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.own(x) + self.near(self.propagate(edge_index, x=x))

    def message(self, x_j: Tensor) -> Tensor:
        return x_j


class GraphEdge(MessagePassing):
    """`LatticeEdge` and `FeatureEdge` on any graph: y_i = max_j (W_own x_i + W_edge (x_j - x_i)) + b."""

    def __init__(self, channels: int) -> None:
        super().__init__(aggr="max")
        self.own = nn.Linear(channels, channels)
        self.edge = nn.Linear(channels, channels, bias=False)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x)

    def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
        return self.own(x_i) + self.edge(x_j - x_i)


def lattice_edges(shape: tuple[int, int, int], self_loops: bool, keep: Tensor | None = None) -> Tensor:
    """Edges (2, E) between the 26-neighbours of a (D, H, W) lattice, nodes numbered as `flatten_nodes` does.

    keep: bool (D, H, W), e.g. voxels inside the body; others get no edge (their numbers stay).
    """
    ids = torch.full([n + 2 for n in shape], -1)
    inner = ids[1:-1, 1:-1, 1:-1]
    inner.copy_(torch.arange(inner.numel()).reshape(shape))
    if keep is not None:
        inner[~keep] = -1
    edges = []
    for dz in range(3):
        for dy in range(3):
            for dx in range(3):
                if (dz, dy, dx) == (1, 1, 1) and not self_loops:
                    continue
                source = ids[dz : dz + shape[0], dy : dy + shape[1], dx : dx + shape[2]]
                both = (source >= 0) & (inner >= 0)
                edges.append(torch.stack([source[both], inner[both]]))
    return torch.cat(edges, dim=1)


def neighbour_edges(index: Tensor) -> Tensor:
    """The (N, k) answer of `nearest_nodes` for one sample -> edges (2, N*k)."""
    n, k = index.shape
    return torch.stack([index.reshape(-1), torch.arange(n, device=index.device).repeat_interleave(k)])
