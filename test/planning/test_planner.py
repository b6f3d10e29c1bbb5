"""Paths around a ball in a box of air: the margin is kept by VTK's measure, and what cannot be reached is refused."""

from importlib.util import find_spec

import numpy as np
import pytest
import trimesh

from threedme_ros.geometry.surface import Mesh
from threedme_ros.planning.clearance import clearance_along_mm, clearances_mm
from threedme_ros.planning.planner import GUARD_M, plan
from threedme_ros.planning.scene import CollisionScene, Obstacle, Workspace
from threedme_ros.planning.tool import Poses, Tool, directions, rotation_to
from threedme_ros.volume import Volume

MISSING = [name for name in ("ompl", "coal") if find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"the extra `planning` is not installed: {MISSING}")
TOOL = Tool(radius_m=0.002, length_m=0.02)
ROOM_AFFINE = np.array([[5.0, 0, 0, -100], [0, 5, 0, -100], [0, 0, 5, -100], [0, 0, 0, 1]])
ROOM = Workspace(Volume(np.ones((41, 41, 41), bool), ROOM_AFFINE))
START, GOAL = Poses.one((-0.08, 0, 0), (1, 0, 0)), Poses.one((0.08, 0, 0), (1, 0, 0))


def ball(radius_m, inward=False):
    solid = trimesh.creation.icosphere(subdivisions=3, radius=radius_m)
    return Mesh(np.float32(solid.vertices), np.int32(solid.faces[:, ::-1] if inward else solid.faces))


def scene(*obstacles):
    return CollisionScene(list(obstacles), TOOL, GUARD_M)


@pytest.mark.parametrize("margin_m", [0.0, 0.004])
def test_the_way_round_keeps_the_margin_and_goes_from_start_to_goal(margin_m):
    obstacle = ball(0.04)
    found = plan(scene(Obstacle("ball", obstacle, margin_m)), ROOM, START, GOAL)
    assert found.found
    assert clearances_mm(found.poses, TOOL, {"ball": obstacle})["ball"] >= margin_m * 1e3
    assert np.allclose(found.poses.tips[[0, -1]], [START.tips[0], GOAL.tips[0]], atol=1e-6)
    assert np.allclose(found.poses.axes[[0, -1]], [START.axes[0], GOAL.axes[0]], atol=1e-6)
    assert np.linalg.norm(np.diff(found.poses.tips, axis=0), axis=1).max() < 0.0015
    assert found.poses.length_m > 0.16


def test_without_obstacles_it_goes_straight_through():
    found = plan(scene(), ROOM, START, GOAL)
    assert found.poses.length_m == pytest.approx(0.16, abs=1e-4)
    assert clearances_mm(found.poses, TOOL, {"ball": ball(0.04)})["ball"] < -35


def test_the_same_seed_gives_the_same_path():
    first, second = (plan(scene(Obstacle("ball", ball(0.03), 0.002)), ROOM, START, GOAL, seed=5) for _ in range(2))
    assert first.checks == second.checks and np.array_equal(first.poses.tips, second.poses.tips)


def test_a_goal_in_a_closed_shell_is_not_reached():
    shell = Obstacle("shell", ball(0.05, inward=True), 0.002)
    inside = Poses.one((0.01, 0, 0), (1, 0, 0))
    found = plan(scene(shell), ROOM, START, inside, max_checks=3000)
    assert not found.found and found.poses is None and 3000 <= found.checks < 4000


def test_a_goal_within_the_margin_is_refused_at_once():
    with pytest.raises(ValueError, match="goal pose is not free"):
        plan(scene(Obstacle("ball", ball(0.04), 0.004)), ROOM, START, Poses.one((0.045, 0, 0), (-1, 0, 0)))


def test_the_tip_stays_in_the_workspace():
    mask = np.ones((41, 41, 41), bool)
    mask[:, 21:, :] = False  # nothing anterior of the start
    found = plan(scene(Obstacle("ball", ball(0.03), 0.002)), Workspace(Volume(mask, ROOM_AFFINE)), START, GOAL)
    assert found.poses.tips[:, 1].max() <= 0.0026
    with pytest.raises(ValueError, match="empty body mask"):
        Workspace(Volume(np.zeros((3, 3, 3), bool), np.eye(4)))


def test_coal_and_vtk_agree_about_a_margin():
    obstacle = ball(0.04)
    rng = np.random.default_rng(0)
    tips, axes = rng.uniform(-0.08, 0.08, (400, 3)), directions(400)
    checker = CollisionScene([Obstacle("ball", obstacle, 0.005)], TOOL)
    free = np.array([checker.is_free(tip, rotation_to(axis)) for tip, axis in zip(tips, axes, strict=True)])
    room = clearance_along_mm(Poses(tips, axes), TOOL, obstacle) - 5
    touching = np.abs(clearance_along_mm(Poses(tips, axes), TOOL, obstacle)) < 50
    sure = (np.abs(room) > 0.2) & touching & (np.linalg.norm(tips, axis=1) > 0.04)
    assert sure.sum() > 100 and (free[sure] == (room[sure] > 0)).all()


def test_a_tool_without_thickness_is_refused():
    with pytest.raises(ValueError, match="radius_m 0"):
        Tool(radius_m=0)
