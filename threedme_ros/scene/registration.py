"""When did the patient move against the robot? From the transform between their frames, sampled now and then."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class Registration:
    """A change is told once the transform has been still for ``settle_s``, or now and then while it keeps moving.

    The pause gives the planner's own listener time to hear of it; whoever places objects too early places them wrong.
    """

    tolerance_mm: float = 0.5
    tolerance_deg: float = 0.05  # 0.4 mm half a metre from the frame's origin
    settle_s: float = 0.5
    _last: np.ndarray | None = None
    _changed_s: float = 0.0
    _moving_since_s: float | None = None

    def update(self, now_s: float, transform: np.ndarray) -> bool:
        """transform: (4, 4), m. True if objects have to be placed again; the first transform is no change."""
        if self._last is None:
            self._last = transform
        elif self._differs(transform):
            self._last, self._changed_s = transform, now_s
            if self._moving_since_s is None:
                self._moving_since_s = now_s
        if self._moving_since_s is None:
            return False
        still = now_s - self._changed_s >= self.settle_s
        if still:
            self._moving_since_s = None
        elif now_s - self._moving_since_s < 4 * self.settle_s:
            return False
        else:
            self._moving_since_s = now_s
        return True

    def _differs(self, transform: np.ndarray) -> bool:
        step = np.linalg.inv(self._last) @ transform
        turn_deg = np.degrees(np.arccos(np.clip((np.trace(step[:3, :3]) - 1) / 2, -1, 1)))
        return bool(np.linalg.norm(step[:3, 3]) * 1000 > self.tolerance_mm or turn_deg > self.tolerance_deg)
