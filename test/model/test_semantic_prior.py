import pytest
import torch

from threedme_ros.model.embedding import Embedding
from threedme_ros.model.prompt_decoder import Clicks
from threedme_ros.model.semantic_prior import LIMIT, WEIGHT, semantic_prior


@pytest.fixture
def embedding() -> Embedding:
    """16^3 voxels of 10 mm: class 1 in the lower half of w, class 2 in the upper, background in the first slices of d.

    The classifier copies three one-hot features: logits of 20 for the class that is there, 0 for the others.
    """
    level2 = torch.zeros(1, 3, 8, 8, 8)
    level2[:, 1, :, :, :4], level2[:, 2, :, :, 4:] = 20, 20
    level2[:, 1:, :2], level2[:, 0, :2] = 0, 20
    weight, bias = torch.eye(3)[:, None].repeat(1, 8, 1), torch.zeros(3, 8)
    log_normaliser = torch.logsumexp(level2, 1, keepdim=True).repeat(1, 8, 1, 1, 1)
    return Embedding(level2, level2, level2, log_normaliser, weight, bias)


def prior(embedding, *rows):
    clicks = Clicks(torch.tensor([r[:3] for r in rows]), torch.tensor([r[3] for r in rows]), (10.0, 10.0, 10.0))
    return semantic_prior(embedding, clicks)[0, 0]


def test_the_class_of_the_first_click_is_likely_and_all_else_unlikely(embedding):
    found = prior(embedding, (10.0, 8.0, 2.0, True))
    assert found.shape == (16, 16, 16)
    torch.testing.assert_close(found[4:, :, :8], torch.full((12, 16, 8), WEIGHT * LIMIT))
    torch.testing.assert_close(found[4:, :, 8:], torch.full((12, 16, 8), -WEIGHT * LIMIT))
    torch.testing.assert_close(found[:4], torch.full((4, 16, 16), -WEIGHT * LIMIT))


def test_a_click_on_background_says_nothing(embedding):
    torch.testing.assert_close(prior(embedding, (1.0, 8.0, 2.0, True)), torch.zeros(16, 16, 16), atol=1e-4, rtol=0)


def test_later_clicks_fade_what_they_contradict_and_leave_the_rest(embedding):
    alone = prior(embedding, (10.5, 8.5, 2.5, True))
    background = prior(embedding, (10.5, 8.5, 2.5, True), (14.5, 14.5, 2.5, False))
    assert background[14, 14, 2] == pytest.approx(0, abs=1e-4)
    assert 0 < background[10, 14, 2] < alone[10, 14, 2]
    torch.testing.assert_close(background[:, :, 8:], alone[:, :, 8:])
    foreground = prior(embedding, (10.5, 8.5, 2.5, True), (14.5, 14.5, 12.5, True))
    assert foreground[14, 14, 12] == pytest.approx(0, abs=1e-4)
    torch.testing.assert_close(foreground[:, :, :8].clamp_min(0), alone[:, :, :8].clamp_min(0))
