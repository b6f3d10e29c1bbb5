"""The planning demo: a target reached around margins, around bare meshes and through; and one that is out of reach.

Entry, targets and tool are made up for a demonstration of geometry: no clinical plan.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from threedme_ros.anatomy import Anatomy, Role
from threedme_ros.geometry.grown import Solid, grown_mesh, solids
from threedme_ros.geometry.surface import Mesh
from threedme_ros.planning.body import body_mask, skin_point
from threedme_ros.planning.clearance import SignedDistance, clearances_mm
from threedme_ros.planning.planner import GUARD_M, MAX_CHECKS, plan
from threedme_ros.planning.scene import CollisionScene, Obstacle, Workspace
from threedme_ros.planning.tool import Poses, Tool, directions, rotation_to
from threedme_ros.volume import MM_PER_M, Volume

ENTRY_NEAR_M = (0.0, 0.35, 0.25)  # sample patient A: the skin below the navel
TARGET_M = (0.038, 0.145, 0.408)  # sample patient A: the right lobe of the liver, beside the inferior vena cava
SEALED_M = (-0.004, 0.104, 0.355)  # sample patient A: in the vertebral canal, closed in by bone and its margin
SEEDS = (1, 2, 3)  # the shortest of these paths is shown
GOAL_DIRECTIONS = 400
NEAR_MM = 20.0


@dataclass(frozen=True, eq=False)
class Attempt:
    """One way from entry to target. ``poses``: None when none was found, then ``reason`` says why.

    ``clearance_mm``: from the tool's surface to each no-go structure's mesh, the smallest along the way, by VTK; of an
    attempt without a path, at the target. ``spare_mm``: the same from the label voxels themselves, less the margin
    there (widened where the confidence is low): what keeps every margin has none below zero.
    """

    name: str
    target_m: np.ndarray
    poses: Poses | None
    clearance_mm: Mapping[str, float]
    spare_mm: Mapping[str, float]
    reason: str
    checks: int
    seconds: float

    @property
    def length_mm(self) -> float | None:
        """The way of the tip."""
        return None if self.poses is None else self.poses.length_m * MM_PER_M


@dataclass(frozen=True, eq=False)
class PlanningResults:
    """What `plan_demo` found. ``entry_m``: on the skin; ``meshes``: those planned around, metres, RAS+."""

    anatomy: Anatomy
    meshes: Mapping[str, Mesh]
    tool: Tool
    entry_m: np.ndarray
    with_margins: Attempt
    bare: Attempt
    through: Attempt
    unreachable: Attempt

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        return self.with_margins, self.bare, self.through, self.unreachable

    def keeps_margins(self, attempt: Attempt) -> bool:
        """Whether the whole way stays at least each structure's margin away, from its mesh and from its voxels."""
        margins = self.margins_mm()
        return all(
            mm >= margins[name] and attempt.spare_mm.get(name, 0.0) >= 0 for name, mm in attempt.clearance_mm.items()
        )

    def margins_mm(self) -> dict[str, float]:
        return {name: self.anatomy[name].margin_mm for name in self.through.clearance_mm}


def plan_demo(
    image: Volume,
    labels: Volume,
    confidence: Volume | None,
    meshes: Mapping[str, Mesh],
    anatomy: Anatomy,
    *,
    entry_near_m: tuple[float, float, float] = ENTRY_NEAR_M,
    target_m: tuple[float, float, float] = TARGET_M,
    sealed_m: tuple[float, float, float] = SEALED_M,
    tool: Tool | None = None,
    max_checks: int = MAX_CHECKS,
    say: Callable[[str], None] = lambda text: None,
) -> PlanningResults:
    """Plan around what `planning_scene` gives to MoveIt: the no-go structures of ``labels``, grown by their margins.

    image: a CT in HU; labels and confidence: uint8 on its grid; meshes: the structures as published, not grown.
    The same scene gives the same paths. Raises ModuleNotFoundError without ompl or coal, and ValueError when no no-go
    structure has a mesh, the image shows no body, or a target lies outside it.
    """
    tool = tool or Tool()
    no_go = solids(labels, confidence, [s for s in anatomy if s.role is Role.NO_GO and s.name in meshes])
    grown = [Obstacle(name, grown_mesh(solid), 0.0) for name, solid in no_go.items()]
    bare = [Obstacle(name, meshes[name], 0.0) for name in no_go]
    if not grown:
        raise ValueError("no no-go structure has a mesh: expected something to plan around")
    body = body_mask(image)
    workspace = Workspace(body)
    entry = skin_point(body, np.array(entry_near_m))
    desk = _Desk(workspace, tool, entry, no_go, {o.name: o.mesh for o in bare}, anatomy, max_checks, say)
    target = np.array(target_m)
    goal = desk.goal(grown, target)
    straight = goal or Poses.one(target, target - entry)
    sealed = np.array(sealed_m)
    return PlanningResults(
        anatomy=anatomy,
        meshes=meshes,
        tool=tool,
        entry_m=entry,
        with_margins=desk.attempt("with our margins", grown, target, goal),
        bare=desk.attempt("around bare meshes", bare, target, goal),
        through=desk.attempt("without our anatomy", [], target, straight),
        unreachable=desk.attempt("a sealed target", grown, sealed, desk.goal(grown, sealed)),
    )


@dataclass(frozen=True, eq=False)
class _Desk:
    workspace: Workspace
    tool: Tool
    entry: np.ndarray
    solids: Mapping[str, Solid]
    meshes: Mapping[str, Mesh]
    anatomy: Anatomy
    max_checks: int
    say: Callable[[str], None]

    def goal(self, obstacles: list[Obstacle], target: np.ndarray) -> Poses | None:
        """The free pose with the tip at ``target`` that is turned least from the straight way; None without one."""
        if any(SignedDistance(obstacle.mesh)(target[None])[0] < 0 for obstacle in obstacles):
            return None
        scene = CollisionScene(obstacles, self.tool, GUARD_M)
        straight = target - self.entry
        axes = sorted(directions(GOAL_DIRECTIONS), key=lambda axis: -axis @ straight)
        free = (axis for axis in axes if scene.is_free(target, rotation_to(axis)))
        axis = next(free, None)
        return None if axis is None else Poses.one(target, axis)

    def attempt(self, name: str, obstacles: list[Obstacle], target: np.ndarray, goal: Poses | None) -> Attempt:
        self.say(f"planning {name}")
        began = time.perf_counter()
        scene = CollisionScene(obstacles, self.tool, GUARD_M)
        start = Poses.one(self.entry, target - self.entry)
        best, reason, checks = None, "", 0
        if goal is None:
            reason = f"the tool fits in no direction with its tip there; nearest to it: {self._tightest(target)}"
        else:
            for seed in SEEDS if obstacles else SEEDS[:1]:
                tried = plan(scene, self.workspace, start, goal, seed=seed, max_checks=self.max_checks)
                checks += tried.checks
                if not tried.found:  # seeds differ in length, hardly in success: one failure is enough to know
                    break
                if best is None or tried.poses.length_m < best.length_m:
                    best = tried.poses
            if best is None:
                reason = f"no path from the entry among {checks:,} poses; nearest to it: {self._tightest(target)}"
        where = best or goal or Poses.one(target, target - self.entry)
        clearance = clearances_mm(where, self.tool, self.meshes)
        spine_mm = where.spine(self.tool, 0.001).reshape(-1, 3) * MM_PER_M
        spare = {n: float(s.excess_mm(spine_mm).min() - self.tool.radius_m * MM_PER_M) for n, s in self.solids.items()}
        return Attempt(name, target, best, clearance, spare, reason, checks, time.perf_counter() - began)

    def _tightest(self, target: np.ndarray) -> str:
        """The structures that a ball of the tool's radius at ``target`` has least room to, beyond their margins."""
        ball = Tool(self.tool.radius_m, 1e-6)
        room = clearances_mm(Poses.one(target, target - self.entry), ball, self.meshes)
        names = sorted(room, key=lambda name: room[name] - self.anatomy[name].margin_mm)
        names = [names[0], *(n for n in names[1:3] if room[n] < NEAR_MM)]
        return ", ".join(f"{n} {room[n]:.1f} mm (margin {self.anatomy[n].margin_mm:g})" for n in names)


def figures(results: PlanningResults) -> dict:
    """The content of planning.json: millimetres, RAS+, in the patient frame."""
    return {
        "tool": {"diameter_mm": 2 * results.tool.radius_m * MM_PER_M, "length_mm": results.tool.length_m * MM_PER_M},
        "entry_mm": _rounded(results.entry_m),
        "margins_mm": results.margins_mm(),
        "ways": [
            {
                "name": attempt.name,
                "target_mm": _rounded(attempt.target_m),
                "found": attempt.poses is not None,
                "reason": attempt.reason,
                "length_mm": None if attempt.length_mm is None else round(attempt.length_mm, 1),
                "clearance_mm": {name: round(mm, 2) for name, mm in attempt.clearance_mm.items()},
                "spare_mm": {name: round(mm, 2) for name, mm in attempt.spare_mm.items()},
                "keeps_every_margin": attempt.poses is not None and results.keeps_margins(attempt),
                "poses_checked": attempt.checks,
                "seconds": round(attempt.seconds, 2),
            }
            for attempt in results.attempts
        ],
    }


def _rounded(point_m: np.ndarray) -> list[float]:
    return [round(float(v) * MM_PER_M, 1) for v in point_m]
