"""Large arrays plane by plane: what is made on the way stays in the cache instead of taking fresh memory each time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def planes(*arrays: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Views, one voxel thick, of ``arrays`` (of one shape), along the axis with the longest stride in the first one."""
    if any(array.shape != arrays[0].shape for array in arrays):
        raise ValueError(f"shapes {[array.shape for array in arrays]}: expected one shape")
    axis = int(np.argmax(np.abs(arrays[0].strides)))
    ahead = [slice(None)] * axis
    for i in range(arrays[0].shape[axis]):
        yield tuple(array[(*ahead, slice(i, i + 1))] for array in arrays)
