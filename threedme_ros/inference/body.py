"""Where the body is: the network need not see the air around it. Arrays are (D, H, W) in [-1, 1]."""

from __future__ import annotations

from collections import OrderedDict
from math import prod

import numpy as np
from scipy.ndimage import find_objects, label

from threedme_ros.inference.change import BLOCK, block_means
from threedme_ros.inference.made_by import Box
from threedme_ros.inference.preprocess import PADDING_VALUE
from threedme_ros.inference.tiling import STRIDE, Shape, padded_shape

TISSUE = PADDING_VALUE + 0.1
"""A block whose mean is above holds more than air: 40 HU above the lower end of a CT window of 800 HU."""

LEAST_TISSUE_BLOCKS = 8
"""Smaller islands are a cable or a blanket's edge, not a body: half a litre at 3 mm is 300 blocks."""

MARGIN = BLOCK
MAX_SHAPES = 64
"""Volume shapes whose crop is remembered; a stream of ever new ones costs no memory."""
LEAST_SAVING = 0.3
"""Of the voxels to compute. Below it, one engine for all volumes of a scanner is worth more."""


def body_box(x: np.ndarray) -> Box | None:
    """The half-open ranges that hold all tissue of ``x`` and a margin of 4 voxels; None where nothing is air.

    Islands of up to 8 blocks of 4^3 voxels are left out. A volume without any tissue is not cropped.
    """
    groups, count = label(block_means(x) > TISSUE)
    if not count:
        return None
    sizes = np.bincount(groups.ravel())[1:]
    large = [s for s, size in zip(find_objects(groups), sizes, strict=True) if size > LEAST_TISSUE_BLOCKS]
    if not large:
        return None
    box = []
    for axis, n in enumerate(x.shape):
        first = min(s[axis].start for s in large) * BLOCK - MARGIN
        last = max(s[axis].stop for s in large) * BLOCK + MARGIN
        box.append((max(first, 0), min(last, n)))
    return tuple(box) if any((0, n) != side for side, n in zip(box, x.shape, strict=True)) else None


class BodyCrop:
    """Crops of few shapes: one that served before serves again while the body fits in it. Used from one thread."""

    def __init__(self, least_saving: float = LEAST_SAVING) -> None:
        self._least_saving = least_saving
        self._shapes: OrderedDict[Shape, Shape] = OrderedDict()

    def box(self, x: np.ndarray) -> Box | None:
        """What of ``x`` the network is to see; None for all.

        It starts at a multiple of 16, so tokens hold the voxels that they hold in the whole volume, and what it saves
        are whole rows of them.
        """
        body = body_box(x)
        if body is None:
            return None
        starts = [first // STRIDE * STRIDE for first, _ in body]
        shape = padded_shape(tuple(last - start for (_, last), start in zip(body, starts, strict=True)))
        before = self._shapes.get(x.shape, shape)
        if all(a >= b for a, b in zip(before, shape, strict=True)):
            shape = before
        if 1 - prod(shape) / prod(padded_shape(x.shape)) < self._least_saving:
            return None
        self._shapes[x.shape] = shape
        self._shapes.move_to_end(x.shape)
        while len(self._shapes) > MAX_SHAPES:
            self._shapes.popitem(last=False)
        box = []
        for start, size, n in zip(starts, shape, x.shape, strict=True):
            start = max(0, min(start, -(-n // STRIDE) * STRIDE - size))
            box.append((start, min(start + size, n)))
        return tuple(box)
