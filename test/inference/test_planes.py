import numpy as np
import pytest

from threedme_ros.inference.planes import planes


@pytest.mark.parametrize("order", "CF")
def test_every_voxel_once_and_each_plane_in_one_piece_of_memory(order):
    a = np.asarray(np.arange(24).reshape(2, 3, 4), order=order)
    b = np.zeros_like(a)
    pairs = list(planes(a, b))
    for plane, out in pairs:
        assert plane.flags.c_contiguous or plane.flags.f_contiguous
        out[...] = plane + 1
    assert len(pairs) == {"C": 2, "F": 4}[order]
    assert np.array_equal(b, a + 1)


def test_reversed_axes_and_arrays_of_different_order_still_meet_voxel_by_voxel():
    a = np.arange(24).reshape(2, 3, 4)[::-1, :, ::-1]
    b = np.zeros(a.shape, order="F")
    for plane, out in planes(a, b):
        out[...] = plane
    assert np.array_equal(a, b)


def test_arrays_of_two_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 3\), \(3, 2\)"):
        next(planes(np.zeros((2, 3)), np.zeros((3, 2))))
