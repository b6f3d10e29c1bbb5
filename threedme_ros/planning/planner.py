"""OMPL's RRT-Connect for a rigid tool among obstacles; the same scene and seed give the same path."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from threedme_ros.planning.scene import INSTALL, CollisionScene, Workspace
from threedme_ros.planning.tool import Poses, rotation_to

STEP_M = 0.001  # how far any point of the tool moves between two poses that are checked, about
GUARD_M = 0.0005  # kept besides the margin: half a step, so that no pose in between comes nearer than the margin
RANGE_M = 0.03
MAX_CHECKS = 40_000  # poses asked about before the planner gives up; counted, not timed, so that runs repeat
SIMPLIFY_ROUNDS = 3


@dataclass(frozen=True, eq=False)
class Plan:
    """``poses`` a millimetre apart from start to goal, or None; ``checks``: poses asked about."""

    poses: Poses | None
    checks: int

    @property
    def found(self) -> bool:
        return self.poses is not None


def plan(
    scene: CollisionScene,
    workspace: Workspace,
    start: Poses,
    goal: Poses,
    *,
    seed: int = 1,
    max_checks: int = MAX_CHECKS,
) -> Plan:
    """A path of free poses from ``start`` to ``goal`` (one pose each), the tip in ``workspace``.

    ``Plan.poses`` is None when none was found within ``max_checks`` poses. Raises ValueError when the start or the goal
    itself is not free, and ModuleNotFoundError without ompl.
    """
    base, geometric, util = ompl_modules()
    util.setLogLevel(util.LogLevel.LOG_NONE)
    util.RNG.setSeed(seed)
    space = base.SE3StateSpace()
    bounds = base.RealVectorBounds(3)
    for axis in range(3):
        bounds.setLow(axis, float(workspace.low_m[axis]))
        bounds.setHigh(axis, float(workspace.high_m[axis]))
    space.setBounds(bounds)
    space.setSubspaceWeight(1, scene.tool.length_m)  # m a radian: turning about the tip moves the tail so far
    space.setLongestValidSegmentFraction(STEP_M / space.getMaximumExtent())
    checks = 0

    def is_free(state) -> bool:
        nonlocal checks
        checks += 1
        tip, rotation = _pose(state)
        return workspace.holds(tip) and scene.is_free(tip, rotation)

    setup = geometric.SimpleSetup(space)
    setup.setStateValidityChecker(is_free)
    ends = [_state(space, pose) for pose in (start, goal)]
    for name, state in zip(("start", "goal"), ends, strict=True):
        if not is_free(state):
            raise ValueError(f"the {name} pose is not free: {_pose(state)[0].round(4).tolist()} m")
    setup.setStartAndGoalStates(*ends)
    planner = geometric.RRTConnect(setup.getSpaceInformation())
    planner.setRange(RANGE_M)
    setup.setPlanner(planner)
    setup.solve(base.PlannerTerminationCondition(lambda: checks >= max_checks))
    if not setup.haveExactSolutionPath():
        return Plan(None, checks)
    path = setup.getSolutionPath()
    _simplify(geometric.PathSimplifier(setup.getSpaceInformation()), path)
    return Plan(_dense(path), checks)


def _simplify(simplifier, path) -> None:
    """Shortcuts and smoothing by counted steps: OMPL's own `simplify` runs for a time, and differs from run to run."""
    for _ in range(SIMPLIFY_ROUNDS):
        simplifier.reduceVertices(path)
        simplifier.partialShortcutPath(path)
        simplifier.collapseCloseVertices(path)
    simplifier.smoothBSpline(path, 3)


def _dense(path) -> Poses:
    path.interpolate(max(2, int(np.ceil(path.length() / STEP_M)) + 1))
    found = [_pose(state) for state in path.getStates()]
    return Poses(np.array([tip for tip, _ in found]), np.array([rotation[:, 2] for _, rotation in found]))


def _state(space, pose: Poses):
    x, y, z, w = Rotation.from_matrix(rotation_to(pose.axes[0])).as_quat()
    state = space.allocState()
    state.setXYZ(*(float(v) for v in pose.tips[0]))
    rotation = state.rotation()
    rotation.x, rotation.y, rotation.z, rotation.w = float(x), float(y), float(z), float(w)
    return state


def _pose(state) -> tuple[np.ndarray, np.ndarray]:
    """Tip (3,) m and rotation (3, 3)."""
    q = state.rotation()
    x, y, z, w = q.x, q.y, q.z, q.w
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    return np.array([state.getX(), state.getY(), state.getZ()]), rotation


def ompl_modules():
    try:
        from ompl import base, geometric, util
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"planning needs the package ompl: {INSTALL}") from error
    return base, geometric, util
