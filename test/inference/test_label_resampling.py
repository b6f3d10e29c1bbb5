import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from threedme_ros.inference.label_resampling import nearest, resample_labels


def centres(shape: tuple[int, int, int], extent: tuple[int, int, int]) -> np.ndarray:
    """(*shape, 3) voxel centres in units of ``extent`` voxels over the same field of view."""
    axes = [(np.arange(m) + 0.5) * n / m - 0.5 for m, n in zip(shape, extent, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1)


def reference(labels: np.ndarray, confidence: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """One full-size interpolated volume a label, by SciPy, and argmax: what the vote must equal."""
    at = np.moveaxis(centres(shape, labels.shape), -1, 0)
    names = np.unique(labels)
    scores = [map_coordinates((labels == k) * confidence, at, order=1, mode="nearest") for k in names]
    return names[np.argmax(scores, 0)]


@pytest.mark.parametrize("shape", [(15, 12, 21), (9, 13, 7), (10, 9, 7), (2, 3, 2), (5, 18, 3), (11, 4, 16)])
def test_the_vote_equals_argmax_of_interpolated_label_volumes(shape) -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, (5, 6, 7), dtype=np.uint8) * 60
    confidence = rng.uniform(0.2, 1, labels.shape)
    np.testing.assert_array_equal(resample_labels(labels, confidence, shape), reference(labels, confidence, shape))


def test_the_same_shape_is_the_identity() -> None:
    labels = np.random.default_rng(0).integers(0, 255, (5, 6, 7), dtype=np.uint8)
    confidence = np.ones(labels.shape, np.float32)
    np.testing.assert_array_equal(resample_labels(labels, confidence, labels.shape), labels)
    np.testing.assert_array_equal(nearest(labels, labels.shape), labels)


def test_an_enlarged_ellipsoid_is_closer_to_the_analytic_one_than_nearest() -> None:
    shape, fine = (16, 18, 20), (48, 54, 60)

    def inside(points: np.ndarray) -> np.ndarray:
        return (((points - (7.3, 8.6, 9.1)) / (5.2, 6.4, 7.7)) ** 2).sum(-1) < 1

    labels = inside(centres(shape, shape)).astype(np.uint8) * 9
    truth = inside(centres(fine, shape)) * 9
    smooth = resample_labels(labels, np.ones(shape, np.float32), fine)
    blocky = nearest(labels, fine)
    assert (smooth != truth).sum() < 0.7 * (blocky != truth).sum()
    assert set(np.unique(smooth)) == {0, 9}


def test_a_face_between_equals_lies_half_way_and_a_surer_side_pushes_it() -> None:
    labels = np.zeros((4, 1, 1), np.uint8)
    labels[2:] = 5
    even = np.ones(labels.shape, np.float32)
    surer = np.where(labels == 5, 0.9, 0.3).astype(np.float32)
    np.testing.assert_array_equal(resample_labels(labels, even, (12, 1, 1)).ravel(), [0] * 6 + [5] * 6)
    # between centres 1 and 2 the fractions are 1/6, 1/2 - 1/6 ...: 5 wins where 0.9 t > 0.3 (1 - t), t > 1/4
    np.testing.assert_array_equal(resample_labels(labels, surer, (24, 1, 1)).ravel(), [0] * 11 + [5] * 13)


def test_the_outer_half_voxel_repeats_the_border() -> None:
    labels = np.array([3, 8], np.uint8).reshape(1, 1, 2)
    out = resample_labels(labels, np.ones(labels.shape, np.float32), (4, 1, 8))
    np.testing.assert_array_equal(out, np.broadcast_to(np.array([3] * 4 + [8] * 4), (4, 1, 8)))
    np.testing.assert_array_equal(nearest(labels, (4, 1, 8)), out)


def test_no_label_appears_that_was_not_among_the_neighbours() -> None:
    # numbers between two ids must never be made up: 1 and 255 hold no 128 between them
    labels = np.random.default_rng(2).choice(np.array([1, 255], np.uint8), (6, 6, 6))
    assert set(np.unique(resample_labels(labels, np.ones(labels.shape, np.float32), (17, 14, 19)))) == {1, 255}
