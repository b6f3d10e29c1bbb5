"""Distances to a sphere and a box against the formulas; Coal's answer against VTK's."""

import numpy as np
import pytest
import trimesh

from threedme_ros.geometry.surface import Mesh
from threedme_ros.planning.clearance import SignedDistance, clearance_along_mm, clearances_mm
from threedme_ros.planning.tool import Poses, Tool

TOOL = Tool(radius_m=0.002, length_m=0.02)


def ball(centre, radius_m):
    solid = trimesh.creation.icosphere(subdivisions=4, radius=radius_m)
    return Mesh(np.float32(solid.vertices + centre), np.int32(solid.faces))


def test_a_tool_beside_a_sphere_has_the_analytic_clearance():
    mesh = ball((0.1, 0, 0), 0.03)
    beside = Poses(np.array([[0.04, 0.01, 0], [0.05, 0.01, 0]]), np.array([[0, 1.0, 0], [0, 1, 0]]))  # centres level
    assert clearance_along_mm(beside, TOOL, mesh) == pytest.approx([60 - 30 - 2, 50 - 30 - 2], abs=0.1)
    assert clearances_mm(beside, TOOL, {"ball": mesh})["ball"] == pytest.approx(18, abs=0.1)
    towards = Poses.one((0.05, 0, 0), (1, 0, 0))
    assert clearances_mm(towards, TOOL, {"ball": mesh})["ball"] == pytest.approx(50 - 30 - 2, abs=0.1)
    away = Poses.one((0.05, 0, 0), (-1, 0, 0))  # the tail reaches 20 mm nearer
    assert clearances_mm(away, TOOL, {"ball": mesh})["ball"] == pytest.approx(-2, abs=0.1)


def test_inside_is_negative_and_as_deep_as_it_is():
    mesh = ball((0, 0, 0), 0.03)
    through = Poses(np.linspace([-0.08, 0, 0], [0.08, 0, 0], 161), np.tile([1.0, 0, 0], (161, 1)))
    assert clearances_mm(through, TOOL, {"ball": mesh})["ball"] == pytest.approx(-32, abs=0.2)
    assert SignedDistance(mesh)(np.array([[0.02, 0, 0], [0.04, 0, 0]])) * 1e3 == pytest.approx([-10, 10], abs=0.1)


def test_large_flat_faces_do_not_hide_the_nearest_point():
    box = trimesh.creation.box(extents=(0.2, 0.2, 0.01))  # two triangles a side, vertices far from the middle
    mesh = Mesh(np.float32(box.vertices), np.int32(box.faces))
    over = Poses(np.array([[0.09, 0.09, 0.05], [0, 0, 0.02]]), np.array([[0, 0, -1.0], [1, 0, 0]]))
    assert clearances_mm(over, TOOL, {"box": mesh})["box"] == pytest.approx(20 - 5 - 2, abs=0.01)
