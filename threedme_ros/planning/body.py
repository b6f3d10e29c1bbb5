"""The body in a CT: where the tip of a tool may be, and where it can enter."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_fill_holes, label

from threedme_ros.volume import Volume

AIR_BELOW_HU = -300.0


def body_mask(image: Volume) -> Volume:
    """The largest connected part of a CT above -300 HU, axial slices filled: bool on the image's grid.

    Raises ValueError for a volume of air.
    """
    upright, turned = image.reoriented("RAS")
    parts, count = label(upright.voxels > AIR_BELOW_HU)
    if not count:
        raise ValueError(f"no voxel above {AIR_BELOW_HU:g} HU: expected a CT with a patient in it")
    body = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    for axial in range(body.shape[2]):
        body[:, :, axial] = binary_fill_holes(body[:, :, axial])
    return image.with_voxels(turned.invert(body))


def skin_point(body: Volume, near_m: np.ndarray) -> np.ndarray:
    """The voxel centre (3,) m on the body's surface nearest to ``near_m`` (3,), with air beside it in the volume."""
    padded = np.pad(body.voxels.astype(bool), 1, mode="edge")  # the volume's own border is no skin
    inner = padded[1:-1, 1:-1, 1:-1]
    outside = np.zeros(inner.shape, bool)
    for axis in range(3):
        for shift in (-1, 1):
            outside |= ~np.roll(padded, shift, axis)[1:-1, 1:-1, 1:-1]
    skin = body.grid.to_mm(np.argwhere(inner & outside)) / 1e3
    return skin[np.linalg.norm(skin - near_m, axis=1).argmin()]
