import numpy as np
import pytest
import torch

from threedme_ros.inference.neighbours import Neighbours, volume_vectors
from threedme_ros.model.config import ModelConfig
from threedme_ros.model.encoder import Encoder

LABELS = np.repeat([0, 1, 2], 20)


@pytest.fixture(scope="module")
def vectors() -> torch.Tensor:
    """Three loose clusters on the sphere."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(3, 12, generator=generator)
    noisy = centres.repeat_interleave(20, 0) + 0.9 * torch.randn(60, 12, generator=generator)
    return torch.nn.functional.normalize(noisy, dim=1)


def test_without_temperature_the_votes_are_those_of_scikit_learn(vectors):
    sklearn = pytest.importorskip("sklearn.neighbors")
    centred = (vectors - vectors[::2].mean(0)).numpy()
    theirs = sklearn.KNeighborsClassifier(5, metric="cosine").fit(centred[::2], LABELS[::2])
    ours = Neighbours(vectors[::2], LABELS[::2], 3, k=5, temperature=1e6)
    np.testing.assert_allclose(ours.probabilities(vectors[1::2]), theirs.predict_proba(centred[1::2]), atol=1e-5)


def test_the_nearest_example_decides_and_a_near_one_weighs_more(vectors):
    nearest = Neighbours(vectors, LABELS, 3, k=1).probabilities(vectors)
    np.testing.assert_array_equal(nearest, np.eye(3)[LABELS])
    corners = Neighbours(torch.eye(3), np.array([0, 1, 2]), 4, k=99, temperature=0.5)
    shares = corners.probabilities(torch.tensor([[0.9, 0.4, 0.1]]))[0]
    assert shares[0] > shares[1] > shares[2] > shares[3] == 0
    assert shares.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("labels", "changes", "words"),
    [([0, 1], {}, "2 labels"), ([0, 1, 3], {}, "expected 0 to 2"), ([0, 1, 2], {"k": 0}, "k 0")],
)
def test_examples_that_do_not_fit_are_refused(labels, changes, words):
    with pytest.raises(ValueError, match=words):
        Neighbours(torch.eye(3), np.array(labels), 3, **changes)


def test_a_volume_becomes_one_unit_vector_of_both_branches():
    config = ModelConfig("small", 3, channels=(8, 16, 24), vit_dim=24, vit_depth=1)
    found = volume_vectors(Encoder(config).eval(), torch.rand(2, 1, 32, 32, 16))
    assert found.shape == (2, 24 + 24)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2))
