"""The tissues of a case: every structure of the source segmentation, split by intensity, and the unlabelled body.

Arrays are (D, H, W) = (S, A, R) on the model's grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from threedme_ros.model.config import Preprocessing

from .augment import PADDING
from .substances import Substance

OUTSIDE, AIR = 0, 1
"""Tissue ids: beyond the scan, and the air (and table) around the body."""
MAX_TISSUES = 256
HU_GAS, HU_FAT, HU_BONE, HU_CORTEX = -150.0, -25.0, 160.0, 320.0
MUSCLE, VESSEL, BONE, BOWEL = 1, 2, 3, 4
"""Kinds: see `Tissues`."""
OF_KIND = {MUSCLE: Substance.MUSCLE, VESSEL: Substance.VEIN, BONE: Substance.MARROW, BOWEL: Substance.GUT_CONTENT}


@dataclass(frozen=True, eq=False)
class Tissues:
    """The table of source tissues of one case; every tensor is (T,), indexed by tissue id (0 `OUTSIDE`, 1 `AIR`).

    target: the model's label. family: tissues that share one mean (a pair of kidneys, all ribs). kind: families that
    tend to look alike (0 none, then muscle, vessel, bone, bowel). dark: gas or air. mean, std: of the real image, in
    the model's -1..1 (where no scan lies behind the case: of a plain CT without contrast, and about 0.02).
    substance: `Substance`, what it is made of, from which plausible CT phases and MR sequences are drawn; None takes it
    from kind and dark. ct_window_hu: the HU that -1 and 1 stand for.
    """

    target: Tensor
    family: Tensor
    kind: Tensor
    dark: Tensor
    mean: Tensor
    std: Tensor
    substance: Tensor | None = None
    ct_window_hu: tuple[float, float] = Preprocessing().ct_window_hu

    def __post_init__(self) -> None:
        if self.substance is None:
            table = torch.tensor([OF_KIND.get(kind, Substance.UNKNOWN) for kind in range(int(self.kind.max()) + 1)])
            substance = torch.where(self.dark, int(Substance.GAS), table[self.kind])
            object.__setattr__(self, "substance", substance)
        for name in ("family", "kind", "dark", "mean", "std", "substance"):
            if getattr(self, name).shape != self.target.shape:
                raise ValueError(f"{name} {tuple(getattr(self, name).shape)}: expected {tuple(self.target.shape)}")

    def __len__(self) -> int:
        return len(self.target)


def find_tissues(
    image: np.ndarray,
    structures: np.ndarray,
    target: np.ndarray,
    families: Mapping[int, int],
    kinds: Mapping[int, int],
    hu_to_unit,
    substances: Mapping[int, tuple[Substance, Substance]] | None = None,
    ct_window_hu: tuple[float, float] = Preprocessing().ct_window_hu,
) -> tuple[np.ndarray, Tissues]:
    """Split a case into tissues.

    image: (D, H, W) float32 in [-1, 1]. structures: (D, H, W) uint8, the source segmentation with all its ids.
    target: (D, H, W) uint8, the model's labels. families, kinds: structure id -> see `Tissues`. substances: structure
    id -> what its two parts are made of (without: as its kind is): gut is split into content and wall, bone into marrow
    and cortex, all else into a darker and a brighter half. hu_to_unit: HU -> [-1, 1], for
    ct_window_hu. Returns the tissue map (D, H, W) uint8 and its table.
    Raises ValueError when there are more than 255 tissues.
    """
    gas, fat, bone = (hu_to_unit(h) for h in (HU_GAS, HU_FAT, HU_BONE))
    substances = substances or {}
    body = body_mask(image > hu_to_unit(-120.0)) | (structures > 0)
    soft = ndimage.uniform_filter(image, 3)
    tissue = np.full(image.shape, AIR, np.uint8)
    air = (0, 0, 0, True, Substance.GAS)
    rows = [air, air]  # OUTSIDE, AIR: target, family, kind, dark, substance
    next_family = 1 + max([0, *families.values()])

    def add(mask: np.ndarray, label: int, family: int, kind: int, dark: bool, substance: Substance) -> None:
        if not mask.any():
            return
        if len(rows) == MAX_TISSUES:
            raise ValueError(f"more than {MAX_TISSUES} tissues in one case: expected fewer source structures")
        tissue[mask] = len(rows)
        rows.append((label, family, kind, dark, substance))

    rest = body & (structures == 0)
    muscle_low, muscle_high = hu_to_unit(35.0), bone
    add(rest & (image < gas), 0, next_family, 0, True, Substance.GAS)
    add(rest & (image >= gas) & (image < fat), 0, next_family + 1, 0, False, Substance.FAT)
    add(rest & (image >= fat) & (soft < muscle_low), 0, next_family + 2, 0, False, Substance.UNKNOWN)
    lean = rest & (image >= fat) & (soft >= muscle_low) & (image < muscle_high)
    add(lean, 0, next_family + 3, MUSCLE, False, Substance.MUSCLE)
    add(rest & (image >= muscle_high), 0, next_family + 4, BONE, False, Substance.CORTICAL_BONE)
    for structure in np.unique(structures[structures > 0]):
        inside = structures == structure
        kind = kinds.get(int(structure), 0)
        plain = OF_KIND.get(kind, Substance.UNKNOWN)
        darker, brighter = substances.get(int(structure), (plain, plain))
        for label in np.unique(target[inside]):
            mask = inside & (target == label)
            family = families.get(int(structure), next_family + 5 + int(structure))
            holes = mask & (image < gas)
            if holes.sum() < 0.02 * mask.sum():
                holes[:] = False
            add(holes, int(label), family, 0, True, Substance.GAS)
            mask &= ~holes
            second = _second_part(mask, inside, image, soft, brighter, hu_to_unit)
            add(mask & ~second, int(label), family, kind, False, darker)
            add(second, int(label), family, kind, False, brighter)
    count = np.maximum(np.bincount(tissue.ravel(), minlength=len(rows)), 1)
    mean = np.bincount(tissue.ravel(), image.ravel(), len(rows)) / count
    square = np.bincount(tissue.ravel(), image.ravel() ** 2, len(rows)) / count
    mean[OUTSIDE] = PADDING
    columns = list(zip(*rows, strict=True))
    return tissue, Tissues(
        target=torch.tensor(columns[0], dtype=torch.uint8),
        family=torch.tensor(columns[1]),
        kind=torch.tensor(columns[2]),
        dark=torch.tensor(columns[3]),
        mean=torch.tensor(mean, dtype=torch.float32),
        std=torch.tensor(np.sqrt(np.maximum(square - mean**2, 0)), dtype=torch.float32),
        substance=torch.tensor([int(s) for s in columns[4]]),
        ct_window_hu=tuple(ct_window_hu),
    )


def _second_part(
    mask: np.ndarray, structure: np.ndarray, image: np.ndarray, soft: np.ndarray, substance: Substance, hu_to_unit
) -> np.ndarray:
    """Of ``mask`` (D, H, W) bool, in its ``structure``: the wall of gut, the cortex of bone, or the brighter half."""
    if mask.sum() <= 200:
        return np.zeros_like(mask)
    if substance == Substance.GUT_WALL:
        return mask & ~ndimage.binary_erosion(structure, border_value=1)
    if substance == Substance.CORTICAL_BONE:
        return mask & (image > hu_to_unit(HU_CORTEX))
    return mask & (soft > np.median(soft[mask]))


def body_mask(dense: np.ndarray) -> np.ndarray:
    """The largest connected part of ``dense`` (D, H, W) bool, axial holes (bowel gas, lungs) filled."""
    in_plane = ndimage.generate_binary_structure(2, 1)[None]  # a thin slab has no depth to erode
    opened = ndimage.binary_opening(dense, in_plane, iterations=2)
    parts, count = ndimage.label(opened)
    if count == 0:
        return dense
    largest = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
    largest = ndimage.binary_dilation(largest, in_plane, iterations=2) & dense
    return np.stack([ndimage.binary_fill_holes(axial) for axial in largest])
