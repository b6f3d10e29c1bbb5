"""The clicks on one structure of one volume."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from std_msgs.msg import Header

from threedme_ros.inference.prompts import inside
from threedme_ros.volume import MM_PER_M, Volume

MAX_CLICKS = 100
"""More on one structure is no person: every click costs as much as all before it."""


class ClickError(ValueError):
    """A click that is not taken; the message says why and what was expected."""


@dataclass(frozen=True, eq=False)
class Session:
    """The volume that clicks refer to, its header, and the clicks on it so far: RAS+ m in its frame."""

    volume: Volume
    header: Header
    points_m: tuple[tuple[float, float, float], ...] = ()
    foreground: tuple[bool, ...] = ()

    def clicked(self, point_m: np.ndarray, foreground: bool) -> Session:
        """With one more click; ClickError if it means nothing."""
        text = ", ".join(f"{v:.4g}" for v in point_m)
        if not np.isfinite(point_m).all():
            raise ClickError(f"point ({text}) m: expected finite numbers")
        if not inside(self.volume, point_m[None] * MM_PER_M)[0]:
            raise ClickError(f"point ({text}) m in {self.volume.frame_id}: expected one inside the volume")
        if not (foreground or any(self.foreground)):
            raise ClickError("a background click with nothing to correct: expected a click inside a structure first")
        if len(self.points_m) >= MAX_CLICKS:
            raise ClickError(f"{len(self.points_m)} clicks on this structure: expected at most {MAX_CLICKS}")
        return replace(
            self, points_m=(*self.points_m, tuple(point_m.tolist())), foreground=(*self.foreground, foreground)
        )

    def shows(self, volume: Volume) -> bool:
        """Whether ``volume`` is this one again: clicks and encoding then still hold."""
        return (
            self.volume.frame_id == volume.frame_id
            and self.volume.grid.matches(volume.grid)
            and np.array_equal(self.volume.voxels, volume.voxels)
        )
