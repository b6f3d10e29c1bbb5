"""How a perception node ends: every part, whatever the others do, within the time that `ros2 launch` allows."""

import pytest

pytest.importorskip("rclpy")
from threedme_ros.nodes import perception
from threedme_ros.nodes.perception import PerceptionNode

PARTS = ("_health", "_prompting", "_outputs", "_live", "_tape", "_worker", "_keeper")


class Part:
    """Notes what it is told; a stop takes all the time it is given."""

    def __init__(self, name, told, clock, failing):
        self.name, self.told, self.clock, self.failing = name, told, clock, failing

    def __getattr__(self, order):
        def obey(*given):
            self.told.append((self.name, order, *given))
            if order == "stop":
                self.clock.now_s += given[0]
            if (self.name, order) in self.failing:
                raise RuntimeError(f"{self.name} {order}")

        return obey


@pytest.fixture
def node(clock, monkeypatch):
    monkeypatch.setattr(perception, "monotonic", clock)
    node = PerceptionNode.__new__(PerceptionNode)  # no DDS: only what its end is made of
    node.told, node.failing = [], set()
    for name in PARTS:
        setattr(node, name, Part(name.strip("_"), node.told, clock, node.failing))
    node._volumes = node._obstacle_timer = None
    return node


RELEASE = [
    ("health", "listening", False),
    ("prompting", "close"),
    ("worker", "stop", 20.0),
    ("prompting", "stop", 0.0),
    ("prompting", "release"),
    ("outputs", "close"),
    ("health", "withdrawn"),
    ("live", "release"),
    ("keeper", "close"),
    ("tape", "stop", 5.0),
]


def test_a_volume_a_click_and_a_disk_that_all_hang_take_less_than_launch_waits(node, clock):
    began_s = clock.now_s
    node.release()
    assert node.told == RELEASE
    assert clock.now_s - began_s == 25.0


def test_a_part_that_raises_keeps_no_other_from_its_end(node):
    node.failing |= {("prompting", "close"), ("worker", "stop"), ("live", "release"), ("keeper", "close")}
    with pytest.raises(RuntimeError, match="keeper close"):
        node.release()
    assert node.told == RELEASE
    assert node._worker is None
    assert node._keeper is None
