"""Is what one volume shows a change that a body makes between two volumes, or a mistake of the segmentation?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

VOLUME_RATIO = 2.0
"""A structure that at least doubles or halves is implausible."""

JUMP_MM = 40.0
"""So is a centre that moves this far and farther than the structure's size (breathing moves organs by 20 mm)."""

SIDE_MM = 15.0
"""And one that was this far on one side of the midline and is as far on the other."""


@dataclass(frozen=True)
class Extent:
    """A structure in one volume: ``volume_ml``, and its ``centre_mm``, RAS+ in the patient frame."""

    volume_ml: float
    centre_mm: tuple[float, float, float]

    @property
    def size_mm(self) -> float:
        """The diameter of a ball of this volume."""
        return 2 * (3 * self.volume_ml * 1000 / (4 * np.pi)) ** (1 / 3)


def implausible_change(before: Extent, now: Extent | None, *, midline_mm: float | None = None) -> str:
    """Why ``now`` cannot be ``before`` some seconds later, in a few words; empty if it can.

    now: None for a structure that is not there any more. midline_mm: R of the patient's midline, where it is known
    (the vertebrae's centre).
    """
    if now is None:
        return f"vanished ({before.volume_ml:.0f} ml before)"
    ratio = now.volume_ml / before.volume_ml
    if ratio >= VOLUME_RATIO:
        return f"grew from {before.volume_ml:.0f} to {now.volume_ml:.0f} ml"
    if ratio <= 1 / VOLUME_RATIO:
        return f"shrank from {before.volume_ml:.0f} to {now.volume_ml:.0f} ml"
    if midline_mm is not None:
        sides = [extent.centre_mm[0] - midline_mm for extent in (before, now)]
        if min(map(abs, sides)) >= SIDE_MM and sides[0] * sides[1] < 0:
            return f"jumped sides, from {side(sides[0])} to {side(sides[1])}"
    moved = float(np.linalg.norm(np.subtract(now.centre_mm, before.centre_mm)))
    if moved >= max(JUMP_MM, before.size_mm):
        return f"moved by {moved:.0f} mm"
    return ""


def side(right_mm: float) -> str:
    return "right" if right_mm > 0 else "left"
