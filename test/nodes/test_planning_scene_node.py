"""The node inside the test, without MoveIt: what it hears, not what it sends (test/ros/test_planning_scene.py)."""

import sys
import time
from types import ModuleType

import pytest

pytest.importorskip("rclpy")
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from std_msgs.msg import String
from std_srvs.srv import Trigger

from threedme_ros.nodes.planning_scene import PlanningScene


@pytest.fixture
def node(ros, monkeypatch):
    stand_in = ModuleType("moveit_msgs.srv")
    stand_in.ApplyPlanningScene = stand_in.GetPlanningScene = Trigger  # nothing is sent, so any service will do
    for name in ("moveit_msgs", "moveit_msgs.msg", "moveit_msgs.srv"):
        monkeypatch.setitem(sys.modules, name, stand_in)
    node = PlanningScene(context=ros)
    yield node
    node.close()
    node.destroy_node()


def heard(node, **values):
    pairs = [KeyValue(key=key, value=value) for key, value in values.items()]
    node._on_diagnostics(DiagnosticArray(status=[DiagnosticStatus(name="/perception", values=pairs)]))
    return [line for line in node._plan.condition(time.monotonic()).lines if line.startswith("/perception")]


@pytest.mark.parametrize("value", ["", "three", "9" * 5000, "\0"])
def test_a_number_of_sources_that_is_none_makes_perception_unwell_and_ends_nothing(node, value):
    (line,) = heard(node, volume_sources=value)
    assert line.endswith("expected a number")
    assert heard(node, volume_sources="1") == []
    assert heard(node, volume_sources="0") == ["/perception: no volume source connected"]
    node._tick()
    node._publish_diagnostics()


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"structures": [{"name": "\\ud800"}]}', "9" * 10_000])
def test_a_label_table_that_is_none_is_told_and_ends_nothing(node, text):
    node._on_label_info(String(data=text))
    assert node._last_error.startswith("label_info refused: ")
    node._tick()
    node._publish_diagnostics()
