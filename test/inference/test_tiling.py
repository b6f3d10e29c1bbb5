from math import prod

import numpy as np
import pytest

from threedme_ros.inference.tiling import padded_shape, plan_windows

SHAPES = [(7, 16, 33), (100, 90, 80), (64, 64, 64), (130, 49, 200), (17, 300, 65), (255, 255, 129)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("max_voxels", [48**3, 64 * 64 * 80, 128**3])
@pytest.mark.parametrize("halo", [0, 16])
def test_every_voxel_is_kept_once_and_deep_enough(shape, max_voxels: int, halo: int) -> None:
    written = np.zeros(shape, np.uint8)
    windows = plan_windows(shape, max_voxels, halo)
    assert len({w.shape for w in windows}) == 1
    assert prod(windows[0].shape) <= max_voxels
    for window in windows:
        written[window.kept] += 1
        assert not any(n % 16 for n in (*window.shape, *window.start))
        for axis in range(3):
            (first, last), start = window.keep[axis], window.start[axis]
            assert start <= first < last <= start + window.shape[axis]
            assert first == 0 or first - start >= halo
            assert last == shape[axis] or start + window.shape[axis] - last >= halo
    assert (written == 1).all()


def test_a_voxel_is_kept_from_the_window_it_lies_deepest_in() -> None:
    shape = (150, 40, 33)
    windows = plan_windows(shape, 64 * 48 * 48)
    assert len(windows) > 1
    for z in range(shape[0]):
        depth = {
            w.start[0]: min(z - w.start[0] if w.start[0] else 999, w.start[0] + w.shape[0] - 1 - z)
            for w in windows
            if w.start[0] <= z < w.start[0] + w.shape[0]
        }
        keeper = next(w.start[0] for w in windows if w.keep[0][0] <= z < w.keep[0][1])
        if max(w.start[0] for w in windows) not in depth:  # its high face is the volume's border, not a cut
            assert depth[keeper] == max(depth.values())


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((1, 16, 17), (16, 16, 32)), ((160, 161, 112), (160, 192, 112)), ((193, 300, 256), (224, 320, 256))],
)
def test_a_volume_that_fits_goes_through_whole(shape, expected) -> None:
    assert padded_shape(shape) == expected
    (window,) = plan_windows(shape, max(prod(expected), 48**3))
    assert window.shape == expected
    assert window.keep == tuple((0, n) for n in shape)


def test_as_few_voxels_as_possible_are_computed() -> None:
    # halves along the longest axis: 2 x 144, where 48^3 windows would need dozens
    windows = plan_windows((256, 128, 128), 128 * 128 * 144)
    assert [w.start for w in windows] == [(0, 0, 0), (112, 0, 0)]
    assert windows[0].shape == (144, 128, 128)


def test_a_window_past_the_end_is_padded_with_air() -> None:
    x = np.random.default_rng(0).uniform(0, 1, (20, 16, 5)).astype(np.float32)
    (window,) = plan_windows(x.shape, 48**3)
    cut = window.cut(x)
    np.testing.assert_array_equal(cut[:20, :, :5], x)
    assert cut.shape == (32, 16, 16)
    assert (cut[20:] == -1).all()
    assert (cut[..., 5:] == -1).all()


def test_what_cannot_be_planned_is_refused() -> None:
    with pytest.raises(ValueError, match="max_window_voxels 1000: expected at least 110592"):
        plan_windows((100, 100, 100), 1000)
    with pytest.raises(ValueError, match="halo 5: expected a non-negative multiple of 16"):
        plan_windows((100, 100, 100), 10**6, halo=5)
    with pytest.raises(ValueError, match="expected three axes of at least one voxel"):
        plan_windows((100, 0, 100), 10**6)
