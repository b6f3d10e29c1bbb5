import numpy as np
import pytest
import torch

from threedme_ros.training.reconstruction import (
    detail_correlation,
    reconstruction_loss,
    to_intensity,
    token_statistics,
)

SHAPE = (2, 1, 16, 16, 16)
GRID = (2, 2, 2, 2)


def images(seed=0):
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def one_hidden(*tokens):
    """A mask of two samples; the named tokens (sample, d, h, w) are hidden."""
    mask = torch.zeros(GRID, dtype=torch.bool)
    for token in tokens:
        mask[token] = True
    return mask


EVERYWHERE = torch.ones(SHAPE, dtype=torch.bool)


@pytest.mark.parametrize(("kind", "expected"), [("l1", 0.5), ("l2", 0.25)])
def test_it_is_the_error_on_hidden_voxels_and_nothing_else(kind, expected):
    image = images()
    prediction = image + 100.0  # wrong wherever it is seen
    mask = one_hidden((0, 0, 0, 0), (1, 1, 1, 1))
    prediction[0, 0, :8, :8, :8] = image[0, 0, :8, :8, :8] + 0.5
    prediction[1, 0, 8:, 8:, 8:] = image[1, 0, 8:, 8:, 8:] - 0.5
    loss = reconstruction_loss(prediction, image, EVERYWHERE, mask, 8, kind, False)
    assert loss.item() == pytest.approx(expected, abs=1e-5)


def test_padding_does_not_count():
    image, prediction = images(), images(1)
    mask, inside = one_hidden((0, 0, 0, 0), (1, 0, 0, 0)), EVERYWHERE.clone()
    inside[:, :, 4:] = False
    difference = (prediction - image)[:, 0, :4, :8, :8].abs()
    loss = reconstruction_loss(prediction, image, inside, mask, 8, "l1", False)
    torch.testing.assert_close(loss, difference.mean())


def test_a_batch_is_the_mean_of_its_samples_though_one_hides_more():
    image, prediction = images(), images(1)
    mask = one_hidden((0, 0, 0, 0), (1, 0, 0, 0), (1, 1, 0, 1), (1, 0, 1, 1))
    parts = [
        reconstruction_loss(prediction[i : i + 1], image[i : i + 1], EVERYWHERE[:1], mask[i : i + 1], 8, "l2", True)
        for i in range(2)
    ]
    whole = reconstruction_loss(prediction, image, EVERYWHERE, mask, 8, "l2", True)
    torch.testing.assert_close(whole, sum(parts) / 2)


def test_a_sample_that_hides_only_padding_counts_as_nothing():
    mask = one_hidden((0, 0, 0, 0))
    loss = reconstruction_loss(images(), images(1), torch.zeros_like(EVERYWHERE), mask, 8, "l1", False)
    assert loss.item() == 0


def test_token_statistics_are_numpys():
    image = images()
    mean, deviation = token_statistics(image, 8)
    token = image[1, 0, 8:, :8, 8:].numpy()
    np.testing.assert_allclose(mean[1, 0, 9, 3, 12], token.mean(), atol=1e-6)
    np.testing.assert_allclose(deviation[1, 0, 9, 3, 12], np.sqrt(token.var() + 1e-4), rtol=1e-5)


def test_a_normalised_target_asks_for_texture_and_comes_back_as_intensity():
    image = images()
    mean, deviation = token_statistics(image, 8)
    perfect = (image - mean) / deviation
    mask = ~one_hidden()
    assert reconstruction_loss(perfect, image, EVERYWHERE, mask, 8, "l2", True).item() < 1e-10
    torch.testing.assert_close(to_intensity(perfect, image, 8, True), image)


def test_detail_is_the_correlation_within_tokens_whatever_their_mean_and_contrast():
    image, mask = images(), one_hidden((0, 0, 0, 0))
    assert detail_correlation(3 * image + 2, image, EVERYWHERE, mask, 8) == pytest.approx(1.0, abs=1e-3)
    assert detail_correlation(-image, image, EVERYWHERE, mask, 8) == pytest.approx(-1.0, abs=1e-3)
    noise = images(5)
    token = (slice(0, 1), 0, slice(0, 8), slice(0, 8), slice(0, 8))
    expected = np.corrcoef(noise[token].numpy().ravel(), image[token].numpy().ravel())[0, 1]
    assert detail_correlation(noise, image, EVERYWHERE, mask, 8) == pytest.approx(expected, abs=1e-3)


def test_detail_of_air_is_not_a_number():
    air = torch.full(SHAPE, -1.0)
    assert np.isnan(detail_correlation(images(), air, EVERYWHERE, ~one_hidden(), 8))
