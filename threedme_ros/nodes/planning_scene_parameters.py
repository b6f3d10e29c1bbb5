"""Parameters of the planning scene node."""

from __future__ import annotations

from dataclasses import dataclass

from threedme_ros.nodes.parameters import Parameters, parameter
from threedme_ros.scene.belief import Rules
from threedme_ros.scene.keeper import Pace
from threedme_ros.volume_io import DEFAULT_MAX_VOXELS


@dataclass(frozen=True)
class PlanningSceneParameters(Parameters):
    """Of the `planning_scene` node."""

    perception: str = parameter("perception", "the node whose diagnostics vouch for a volume; relative names count")
    object_prefix: str = parameter("anatomy_", "begins the names of our objects; all that begin so are ours")
    planning_frame: str = parameter("", "MoveIt's planning frame: move objects when TF changes; empty: no TF")
    stale_after_s: float = parameter(10.0, "unconfirmed for so long, a structure grows [s]", between=(0.0, 1e6))
    growth_mm_per_s: float = parameter(0.1, "how fast it grows [mm/s]", between=(0.0, 100.0))
    growth_limit_mm: float = parameter(5.0, "how far at most [mm]", between=(0.1, 100.0))
    growth_step_mm: float = parameter(0.5, "in steps of so much, each a new mesh [mm]", between=(0.1, 10.0))
    gone_after: int = parameter(5, "removed when not seen in so many good volumes in a row", between=(1, 1000))
    min_confidence: float = parameter(0.5, "a structure less certain is not confirmed [0..1]", between=(0.0, 1.0))
    max_faces: int = parameter(5000, "triangles a structure at most; more slows every plan", between=(100, 5000))
    max_voxels: int = parameter(DEFAULT_MAX_VOXELS, "larger volumes are refused [voxels]", between=(1, 2**40))
    timeout_s: float = parameter(5.0, "a request not answered in this time is sent again [s]", between=(0.1, 600.0))
    retry_first_s: float = parameter(0.5, "pause after a failure; it doubles [s]", between=(0.01, 600.0))
    retry_longest_s: float = parameter(10.0, "but never beyond this [s]", between=(0.01, 600.0))
    check_period_s: float = parameter(
        2.0, "how often /get_planning_scene is asked what is there [s]", between=(0.1, 3600.0)
    )
    settle_s: float = parameter(
        0.5, "after a new registration, wait so long before moving, so that MoveIt has it, too [s]", between=(0.0, 60.0)
    )
    clear_octomap: bool = parameter(True, "call /clear_octomap after a new registration; false: no octomap is used")

    @property
    def rules(self) -> Rules:
        return Rules(
            self.stale_after_s,
            self.growth_mm_per_s,
            self.growth_limit_mm,
            self.growth_step_mm,
            self.gone_after,
            self.min_confidence,
        )

    @property
    def pace(self) -> Pace:
        return Pace(self.timeout_s, self.retry_first_s, self.retry_longest_s)
