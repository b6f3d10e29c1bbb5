import re
from pathlib import Path

import pytest

pytest.importorskip("rclpy")
import rclpy
from rclpy.clock import ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter

from threedme_ros.nodes import steady_timer as module
from threedme_ros.nodes.steady_timer import steady_timer


def test_it_fires_in_simulated_time_without_a_clock(ros):
    simulated = [Parameter("use_sim_time", value=True)]
    node = rclpy.create_node("simulated", context=ros, parameter_overrides=simulated)
    executor, fired = SingleThreadedExecutor(context=ros), []
    executor.add_node(node)
    try:
        timer = steady_timer(node, 0.01, lambda: fired.append(node.get_clock().now().nanoseconds))
        assert timer.clock.clock_type == ClockType.STEADY_TIME
        for _ in range(100):
            if not fired:
                executor.spin_once(timeout_sec=0.1)
        assert fired[0] == 0  # the node's own clock stands still
        node.destroy_timer(timer)
    finally:
        executor.shutdown()
        node.destroy_node()


def test_no_node_has_a_timer_of_another_kind():
    """A planning scene whose timers stop lets its anatomy age unseen, without a word."""
    timers = re.compile(r"\bcreate_(timer|rate|wall_timer)\(")
    folder = Path(module.__file__).parent
    assert [path.name for path in sorted(folder.glob("*.py")) if timers.search(path.read_text())] == ["steady_timer.py"]
