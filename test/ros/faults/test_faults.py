"""Every fault that takes seconds, once. All of them, at random moments and over and over: `run.py`, `make faults`."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy")
sys.path.insert(0, str(Path(__file__).parent))

from catalogue import SCENARIOS
from driver import inject
from theatre import Theatre

pytestmark = pytest.mark.timeout(900)  # a busy machine must not fail them


@pytest.fixture(scope="module")
def theatre(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        theatre = Theatre(tmp_path_factory.mktemp("faults"))
        yield theatre
        theatre.close()


@pytest.mark.parametrize("kind", [kind for kind in SCENARIOS if not kind.slow], ids=lambda kind: kind.name)
def test_fault(kind, theatre):
    if why := kind().possible():
        pytest.skip(why)
    record = inject(kind, theatre, seed=1)
    assert record.passed, record.happened
