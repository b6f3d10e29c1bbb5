"""What holds with and without moveit_msgs; its messages are tested over DDS in test/ros/test_planning_scene.py."""

import sys

import pytest

pytest.importorskip("rclpy")
from threedme_ros.nodes.collision_objects import require_moveit_msgs


def test_a_missing_moveit_msgs_is_named_with_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "moveit_msgs", None)
    with pytest.raises(
        ImportError, match=r"planning_scene needs moveit_msgs: apt install ros-\$ROS_DISTRO-moveit-msgs"
    ):
        require_moveit_msgs()
