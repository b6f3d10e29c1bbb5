"""Fixtures of the tests that start real node processes; `domain` and `perceiving` are what they share."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy")
sys.path.insert(0, str(Path(__file__).parent))  # for `domain` and `perceiving`

from domain import Domain, random_weights


@pytest.fixture(scope="module")
def domain(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        domain = Domain(tmp_path_factory.mktemp("ros"))
        yield domain
        domain.close()


@pytest.fixture(scope="session")
def random_checkpoint(tmp_path_factory) -> Path:
    """As `random_weights` makes it."""
    return random_weights(tmp_path_factory.mktemp("models") / "random.safetensors")
