import numpy as np
import pytest
import torch
from scipy.ndimage import convolve

from threedme_ros.model.layers import flatten_nodes, unflatten_nodes
from threedme_ros.model.voxel_graph import FeatureEdge, LatticeEdge, LatticeMean, box_sum, nearest_nodes

SHAPE = (4, 5, 6)


@pytest.fixture(scope="module")
def pyg():
    return pytest.importorskip("threedme_ros.model.voxel_graph_pyg", reason="torch-geometric is not installed")


def reference_on_lattice(layer, edges, x):
    return unflatten_nodes(torch.stack([layer(nodes, edges) for nodes in flatten_nodes(x)]), SHAPE)


def test_box_sum_equals_a_zero_padded_convolution_with_ones():
    x = torch.randn(1, 1, *SHAPE, dtype=torch.float64)
    expected = convolve(x[0, 0].numpy(), np.ones((3, 3, 3)), mode="constant")
    np.testing.assert_allclose(box_sum(x)[0, 0], expected, atol=1e-12)


def test_dense_mean_layer_equals_pyg(pyg):
    dense, reference = LatticeMean(8), pyg.GraphMean(8)
    reference.load_state_dict(dense.state_dict())
    x = torch.randn(2, 8, *SHAPE)
    edges = pyg.lattice_edges(SHAPE, self_loops=False)
    torch.testing.assert_close(dense(x), reference_on_lattice(reference, edges, x), rtol=0, atol=1e-5)


def test_dense_edge_layer_equals_pyg(pyg):
    dense, reference = LatticeEdge(8), pyg.GraphEdge(8)
    reference.load_state_dict(dense.state_dict())
    x = torch.randn(2, 8, *SHAPE)
    edges = pyg.lattice_edges(SHAPE, self_loops=True)
    torch.testing.assert_close(dense(x), reference_on_lattice(reference, edges, x), rtol=0, atol=1e-5)


def test_feature_edge_layer_equals_pyg_and_keeps_samples_apart(pyg):
    dense, reference = FeatureEdge(8, k=4), pyg.GraphEdge(8)
    reference.load_state_dict(dense.state_dict())
    nodes = torch.randn(2, 30, 8)
    expected = [reference(x, pyg.neighbour_edges(nearest_nodes(x[None], 4)[0])) for x in nodes]
    torch.testing.assert_close(dense(nodes), torch.stack(expected), rtol=0, atol=1e-5)


def test_lattice_edges_count(pyg):
    # a 2x2x2 lattice: every voxel neighbours the seven others
    assert pyg.lattice_edges((2, 2, 2), self_loops=False).shape == (2, 56)
    assert pyg.lattice_edges((2, 2, 2), self_loops=True).shape == (2, 64)


def test_an_irregular_graph_leaves_out_voxels_outside_the_body(pyg):
    keep = torch.ones(3, 3, 3, dtype=torch.bool)
    keep[0] = False
    edges = pyg.lattice_edges((3, 3, 3), self_loops=False, keep=keep)
    assert edges.min() == 9  # the first slab, nodes 0 to 8, has no edge
    # inside the body nothing changes: the same answer as a lattice of the body alone
    layer, x = pyg.GraphMean(4), torch.randn(27, 4)
    inside = layer(x[9:], pyg.lattice_edges((2, 3, 3), self_loops=False))
    torch.testing.assert_close(layer(x, edges)[9:], inside)


def test_nearest_nodes_are_the_nearest():
    nodes = torch.tensor([[[0.0], [1.0], [10.0], [11.5]]])
    assert nearest_nodes(nodes, 2)[0].tolist() == [[0, 1], [1, 0], [2, 3], [3, 2]]
    assert nearest_nodes(nodes, 9).shape == (1, 4, 4)  # fewer nodes than k
