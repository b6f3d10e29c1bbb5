from math import prod

import numpy as np
import pytest

from threedme_ros.inference.change import BLOCK, block_means, changed_blocks, computed_voxels, cover


def test_block_means_are_means_of_4_cubed_voxels_and_of_fewer_at_the_high_end() -> None:
    x = np.random.default_rng(0).normal(size=(9, 8, 6)).astype(np.float32)
    means = block_means(x)
    assert means.shape == (3, 2, 2)
    np.testing.assert_allclose(means[1, 0, 0], x[4:8, :4, :4].mean(), rtol=1e-5)
    np.testing.assert_allclose(means[2, 1, 1], x[8:, 4:, 4:].mean(), rtol=1e-5)


@pytest.mark.parametrize("shape", [(2, 8, 6), (9, 3, 1), (1, 1, 1)])
def test_a_volume_thinner_than_a_block_is_one_block_thick(shape) -> None:
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    means = block_means(x)
    assert means.shape == tuple(-(-n // BLOCK) for n in shape)
    np.testing.assert_allclose(means[0, 0, 0], x[:4, :4, :4].mean(), rtol=1e-5)


def test_noise_is_no_change_and_a_thin_instrument_is_one() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 0, (64, 64, 64)).astype(np.float32)
    noisy = x + rng.normal(0, 0.025, x.shape).astype(np.float32)  # 10 HU at the model's spacing
    assert not changed_blocks(block_means(x), block_means(noisy), 0.02).any()
    noisy[30:34, 30, 30] = 1
    found = changed_blocks(block_means(x), block_means(noisy), 0.02, reach=0)
    assert found.sum() == 2 and found[7, 7, 7] and found[8, 7, 7]
    assert changed_blocks(block_means(x), block_means(noisy), 0.02, reach=1).sum() == 4 * 3 * 3


@pytest.mark.parametrize("shape", [(128, 256, 256), (100, 70, 61), (64, 90, 33), (16, 16, 200)])
@pytest.mark.parametrize("seed", range(4))
def test_every_changed_block_is_kept_deep_enough_in_a_window(shape, seed: int) -> None:
    rng = np.random.default_rng(seed)
    changed = np.zeros([-(-n // BLOCK) for n in shape], bool)
    for _ in range(seed + 1):
        low = [int(rng.integers(0, n)) for n in changed.shape]
        changed[tuple(slice(a, a + int(rng.integers(1, 12))) for a in low)] = True
    windows = cover(changed, shape, (64, 96), 16)
    kept = np.zeros(shape, bool)
    for window in windows:
        kept[window.kept] = True
        for (first, last), start, size, n in zip(window.keep, window.start, window.shape, shape, strict=True):
            padded = -(-n // 16) * 16
            assert start % 16 == 0 and size in (64, 96, padded) and start >= 0 and start + size <= padded
            assert start <= first < last <= min(n, start + size)
            assert start == 0 or first - start >= 16
            assert start + size == padded or start + size - last >= 16
    wanted = np.kron(changed, np.ones((BLOCK,) * 3, bool))[tuple(slice(n) for n in shape)]
    assert kept[wanted].all()
    assert computed_voxels(windows) == sum(prod(w.shape) for w in windows)


def test_a_small_change_is_one_small_window_around_it_and_none_is_none() -> None:
    changed = np.zeros((32, 64, 64), bool)
    assert cover(changed, (128, 256, 256), (64, 96), 16) == []
    changed[16:18, 32:34, 32:34] = True
    (window,) = cover(changed, (128, 256, 256), (64, 96), 16)
    assert window.shape == (64, 64, 64)
    assert window.keep == ((64, 72), (128, 136), (128, 136))


def test_a_long_change_takes_the_size_with_the_fewest_voxels() -> None:
    changed = np.zeros((32, 64, 64), bool)
    changed[14:18, 30:33, 10:26] = True  # 16 x 12 x 64 voxels
    windows = cover(changed, (128, 256, 256), (64, 96), 16)
    assert computed_voxels(windows) <= 4 * 64**3
