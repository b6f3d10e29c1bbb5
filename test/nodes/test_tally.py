import pytest

pytest.importorskip("rclpy")
from diagnostic_msgs.msg import DiagnosticStatus

from threedme_ros.nodes.tally import ERROR_SHOWN_S, Tally


def test_counts_and_an_error_that_fades_but_stays_readable():
    tally = Tally("taken", "refused")
    tally.count("taken")
    assert tally.status("/node", "fine", 0.0, {}).level == DiagnosticStatus.OK
    tally.error("refused", "too large", 10.0)
    status = tally.status("/node", "fine", 11.0, {"port": 4})
    assert (status.level, status.message, status.name) == (DiagnosticStatus.WARN, "too large", "/node")
    values = {pair.key: pair.value for pair in status.values}
    assert values == {"port": "4", "taken": "1", "refused": "1", "last_error": "too large"}
    later = tally.status("/node", "fine", 11.0 + ERROR_SHOWN_S, {})
    assert (later.level, later.message) == (DiagnosticStatus.OK, "fine")
    assert later.values[-1].value == "too large"
