import threading
import time

import numpy as np
import pytest

pytest.importorskip("rclpy")
from builtin_interfaces.msg import Time

from threedme_ros.anatomy import Anatomy, Structure
from threedme_ros.inference.segmenter import Segmentation
from threedme_ros.nodes.diagnostics import Health
from threedme_ros.nodes.messages import volume_message
from threedme_ros.nodes.parameters import PerceptionParameters
from threedme_ros.nodes.pipeline import Settings
from threedme_ros.nodes.volume_worker import VolumeWorker
from threedme_ros.phantom import phantom
from threedme_ros.volume import VolumeError

ANATOMY = Anatomy([Structure(1, "bone", (250, 236, 180), 3.0, "no-go")])
IMAGE = phantom((20, 16, 18), (18.0, 16.0, 24.0))[0]


class Outlet:
    """What the node is to a worker; keeps what is published."""

    def __init__(self):
        self.results, self.clouds, self.lines = [], [], []
        self.info = self.warning = self.error = lambda line, **_: self.lines.append(line)

    def alive(self):
        return True

    def now_s(self):
        return 100.0

    def publish_results(self, results):
        self.results.append(results)

    def publish_clouds(self, clouds):
        self.clouds.append(clouds)

    def publish_health(self):
        pass

    def get_logger(self):
        return self


class Bones:
    """Labels what is above 250 HU, once ``gate`` is open; raises ``error`` if it is set."""

    def __init__(self):
        self.gate, self.started, self.error = threading.Event(), threading.Event(), None
        self.gate.set()

    def segment(self, volume):
        self.started.set()
        assert self.gate.wait(10)
        if self.error:
            raise self.error
        labels = (volume.voxels > 250).astype(np.uint8)
        return Segmentation(volume.with_voxels(labels), volume.with_voxels(labels * np.uint8(200)), {})


@pytest.fixture
def rig():
    """(worker, segmenter, health, outlet), started."""
    segmenter, health, outlet = Bones(), Health(), Outlet()
    worker = VolumeWorker(segmenter, Settings(PerceptionParameters(), ANATOMY), health, outlet)
    worker.start()
    yield worker, segmenter, health, outlet
    segmenter.gate.set()
    worker.stop(10)


def good(second: int):
    return volume_message(IMAGE, Time(sec=second))


def wait(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def stamps(outlet):
    return [r.labels.header.stamp.sec for r in outlet.results]


def test_newest_volume_replaces_the_waiting_one_and_is_counted(rig):
    worker, segmenter, health, outlet = rig
    segmenter.gate.clear()
    worker.submit(good(1))
    assert segmenter.started.wait(10)
    for second in (2, 3, 4):
        worker.submit(good(second))
    segmenter.gate.set()
    wait(lambda: health.counts["segmented"] == 2)
    assert stamps(outlet) == [1, 4]
    counted = {what: n for what, n in health.counts.items() if n}
    assert counted == {"seen": 4, "segmented": 2, "replaced": 2}


def test_bad_header_cannot_replace_a_good_volume_that_waits(rig):
    worker, segmenter, health, outlet = rig
    segmenter.gate.clear()
    worker.submit(good(1))
    assert segmenter.started.wait(10)
    worker.submit(good(2))
    worker.submit(volume_message(IMAGE, Time()))
    assert health.counts["refused"] == 1
    segmenter.gate.set()
    wait(lambda: health.counts["segmented"] == 2)
    assert stamps(outlet) == [1, 2]


@pytest.mark.parametrize(
    ("error", "outcome", "said"),
    [(VolumeError("constant\nvolume"), "refused", "constant volume"), (RuntimeError("boom"), "failed", "boom")],
)
def test_error_publishes_nothing_and_the_last_anatomy_stays(rig, error, outcome, said):
    worker, segmenter, health, outlet = rig
    worker.submit(good(1))
    wait(lambda: health.counts["segmented"] == 1)
    obstacles = worker.last_obstacles
    segmenter.error = error
    worker.submit(good(2))
    wait(lambda: health.counts[outcome] == 1)
    assert said in health.last_error
    assert stamps(outlet) == [1] and worker.last_obstacles is obstacles
    segmenter.error = None
    worker.submit(good(3))
    wait(lambda: health.counts["segmented"] == 2)
    assert stamps(outlet) == [1, 3]


def test_changed_margin_rebuilds_the_clouds_without_the_network(rig):
    worker, segmenter, health, outlet = rig
    worker.submit(good(1))
    wait(lambda: health.counts["segmented"] == 1)
    segmenter.started.clear()
    wider = Anatomy([Structure(1, "bone", (250, 236, 180), 40.0, "no-go")])
    worker.change(Settings(PerceptionParameters(), wider))
    wait(lambda: outlet.clouds)
    assert outlet.clouds[0].obstacles.data != outlet.results[0].clouds.obstacles.data
    assert outlet.clouds[0].obstacles.header.stamp.sec == 1
    assert not segmenter.started.is_set() and health.counts["seen"] == 1


def test_volumes_before_start_after_stop_and_while_disabled_are_ignored():
    health, outlet = Health(), Outlet()
    worker = VolumeWorker(Bones(), Settings(PerceptionParameters(enabled=False), ANATOMY), health, outlet)
    worker.submit(good(1))
    worker.start()
    worker.submit(good(2))
    worker.stop(10)
    worker.submit(good(3))
    assert not worker.again()
    assert health.counts["ignored"] == health.counts["seen"] == 3


def test_again_repeats_the_latest_volume(rig):
    worker, _, health, outlet = rig
    assert not worker.again()
    worker.submit(good(7))
    wait(lambda: health.counts["segmented"] == 1)
    assert worker.again()
    wait(lambda: health.counts["segmented"] == 2)
    assert stamps(outlet) == [7, 7]
