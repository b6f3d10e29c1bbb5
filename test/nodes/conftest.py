import pytest


class Clock:
    """Shows what it is set to."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def ros(monkeypatch):
    """A context of ROS, on this machine only, for nodes inside the test."""
    pytest.importorskip("rclpy")
    import rclpy
    from rclpy.context import Context

    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    context = Context()
    rclpy.init(context=context, domain_id=95)
    yield context
    rclpy.shutdown(context=context)
