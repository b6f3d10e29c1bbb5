import numpy as np
import pytest

pytest.importorskip("rclpy")

from threedme_ros.nodes.postprocessing import postprocess_seconds
from threedme_ros.phantom import phantom


def test_every_run_is_measured_in_wall_and_cpu_seconds(anatomy):
    labels = phantom((40, 36, 32), anatomy=anatomy)[1]
    wall, cpu = postprocess_seconds(labels, None, anatomy, repeats=2)
    assert len(wall) == len(cpu) == 2 and min(*wall, *cpu) > 0 and np.max(wall) < 60
    with pytest.raises(ValueError, match="repeats 0"):
        postprocess_seconds(labels, None, anatomy, repeats=0)
