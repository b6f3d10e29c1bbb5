import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")
from builtin_interfaces.msg import Time

from threedme_ros.anatomy import Anatomy, Structure
from threedme_ros.inference.engines import EngineError
from threedme_ros.inference.segmenter import Segmentation
from threedme_ros.nodes import pipeline
from threedme_ros.nodes.diagnostics import Health
from threedme_ros.nodes.event_log import EventLog, parse_log_line
from threedme_ros.nodes.messages import volume_message
from threedme_ros.nodes.parameters import PerceptionParameters
from threedme_ros.nodes.pipeline import Settings
from threedme_ros.nodes.volume_worker import VolumeWorker
from threedme_ros.nodes.watchdog import LeftBehind
from threedme_ros.phantom import phantom
from threedme_ros.volume import Volume, VolumeError

ANATOMY = Anatomy([Structure(1, "bone", (250, 236, 180), 3.0, "no-go")])
IMAGE = phantom((20, 16, 18), (18.0, 16.0, 24.0))[0]


class Outlet:
    """What the node is to a worker; keeps what is published."""

    def __init__(self):
        self.results, self.clouds, self.lines = [], [], []
        self.info = self.warning = self.error = lambda line: self.lines.append(line)
        self.log = EventLog(self)

    def alive(self):
        return True

    def now_ns(self):
        return 100 * 10**9

    def publish_results(self, results, check):
        check()
        self.results.append(results)

    def publish_clouds(self, clouds, check):
        check()
        self.clouds.append(clouds)

    def publish_health(self):
        pass


class Keeper:
    """Hands out one `Bones` after the other: a new one after each hang."""

    def __init__(self, *segmenters):
        self.segmenters, self.hangs, self.building = list(segmenters), 0, False

    def segmenter(self):
        if not self.segmenters:
            raise EngineError("no engine is left")
        return self.segmenters[0]

    def abandon(self):
        self.hangs += 1
        self.segmenters.pop(0)
        return "bones on cpu"


class Bones:
    """Labels what is above 250 HU, once ``gate`` is open; raises ``error`` if it is set."""

    checkpoint = SimpleNamespace(preprocessing=SimpleNamespace(spacing_mm=(3.0, 3.0, 3.0)))

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


class Clock:
    """Stands still until it is moved."""

    now_s = 0.0

    def __call__(self):
        return self.now_s


def make_worker(keeper, health, outlet, left_behind=None, clock=time.monotonic, **parameters):
    settings = Settings(PerceptionParameters(**parameters), ANATOMY)
    return VolumeWorker(keeper, settings, health, outlet, left_behind or LeftBehind(), clock)


@pytest.fixture
def rig():
    """(worker, segmenter, health, outlet), started."""
    segmenter, health, outlet = Bones(), Health(), Outlet()
    worker = make_worker(Keeper(segmenter), health, outlet)
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


def test_the_size_of_the_work_is_told_as_soon_as_the_volume_is_decoded():
    stages, settings = [], Settings(PerceptionParameters(), ANATOMY)
    pipeline.process(good(1), Bones(), settings, lambda stage, size=0: stages.append((stage, size)))
    # 20 x 16 x 18 voxels of 18 x 16 x 24 mm are 120 x 85 x 144 at 3 mm
    assert stages == [(pipeline.DECODING, 0), (pipeline.NETWORK, 120 * 85 * 144), (pipeline.SURFACES, 0)]
    fine = volume_message(Volume(IMAGE.voxels, np.diag([0.5, 0.5, 0.5, 1.0])), Time(sec=1))
    pipeline.process(fine, Bones(), settings, lambda stage, size=0: stages.append((stage, size)))
    assert stages[-2] == (pipeline.NETWORK, 20 * 16 * 18)


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


WIDER = Anatomy([Structure(1, "bone", (250, 236, 180), 40.0, "no-go")])


def test_a_margin_changed_while_nothing_runs_shows_as_soon_as_it_runs_again(rig):
    worker, _, health, outlet = rig
    worker.submit(good(1))
    wait(lambda: health.counts["segmented"] == 1)
    worker.stop(10)
    worker.change(Settings(PerceptionParameters(), WIDER))
    worker.start()
    wait(lambda: outlet.clouds)
    assert outlet.clouds[0].obstacles.data != outlet.results[0].clouds.obstacles.data
    assert worker.last_obstacles is outlet.clouds[0].obstacles


def test_a_margin_changed_amid_a_volume_shows_though_a_bad_one_takes_the_place_of_the_change(rig):
    worker, segmenter, health, outlet = rig
    segmenter.gate.clear()
    worker.submit(good(1))
    assert segmenter.started.wait(10)
    worker.change(Settings(PerceptionParameters(), WIDER))

    def refuse(volume):
        raise VolumeError("constant")

    segmenter.segment = refuse  # from the second on
    worker.submit(good(2))
    segmenter.gate.set()
    wait(lambda: health.counts["refused"] == 1 and outlet.clouds)
    assert outlet.clouds[-1].obstacles.data != outlet.results[0].clouds.obstacles.data


def test_clouds_that_cannot_be_built_again_are_told_once(rig, monkeypatch):
    worker, _, health, outlet = rig
    worker.submit(good(1))
    wait(lambda: health.counts["segmented"] == 1)
    tried = []

    def fails(*_):
        tried.append(1)
        raise MemoryError("no room")

    monkeypatch.setattr(pipeline, "clouds", fails)
    worker.change(Settings(PerceptionParameters(), WIDER))
    wait(lambda: "no room" in health.last_error)
    worker.submit(good(2))
    wait(lambda: health.counts["segmented"] == 2)
    assert len(tried) == 1 and not outlet.clouds  # the next volume brings them anyway


def test_what_was_given_up_publishes_nothing_more(hanging):
    """The publisher of the first topic hangs, and comes back when another volume was shown."""
    rig = hanging(Bones(), Bones())
    gate, published = threading.Event(), []

    def publish(results, check):
        for topic in ("labels", "anatomy/points"):
            check()
            if results.header.stamp.sec == 1 and topic == "labels":
                gate.wait(30)
            published.append((results.header.stamp.sec, topic))

    rig.outlet.publish_results = publish
    rig.worker.submit(good(1))
    wait(lambda: rig.worker.describe()["watchdog"].startswith("volume for"))
    wait(lambda: rig.worker._watch.stage == "publishing")
    rig.clock.now_s += 31.0
    assert rig.worker.check() == ""
    rig.worker.submit(good(2))
    wait(lambda: len(published) == 2)
    gate.set()
    wait(lambda: rig.left_behind.count == 0)
    assert published == [(2, "labels"), (2, "anatomy/points"), (1, "labels")]


def test_a_flood_of_refusals_is_no_flood_of_diagnostics(rig):
    worker, _, health, outlet = rig
    told = []
    outlet.publish_health = lambda: told.append(1)
    for _ in range(200):
        worker.submit(volume_message(IMAGE, Time()))
    assert health.counts["refused"] == 200 and 1 <= len(told) < 100


def test_volumes_before_start_after_stop_and_while_disabled_are_ignored():
    health, outlet = Health(), Outlet()
    worker = make_worker(Keeper(Bones()), health, outlet, enabled=False)
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


@pytest.fixture
def hanging():
    """hanging(*segmenters, **parameters) -> what a test sees of a worker with these; a hang is one of 30 s."""
    workers, gates = [], []

    def start(*segmenters, **parameters):
        gates.extend(segmenter.gate for segmenter in segmenters)
        rig = SimpleNamespace(health=Health(), outlet=Outlet(), left_behind=LeftBehind(), clock=Clock())
        rig.keeper = Keeper(*segmenters)
        rig.worker = make_worker(rig.keeper, rig.health, rig.outlet, rig.left_behind, rig.clock, **parameters)
        rig.worker.start()
        workers.append(rig.worker)
        return rig

    yield start
    for gate in gates:
        gate.set()
    for worker in workers:
        worker.stop(10)


def hang(rig, segmenter, second):
    """Until ``segmenter`` is stuck in the volume of that stamp, in time, and then too long."""
    segmenter.gate.clear()
    segmenter.started.clear()
    rig.worker.submit(good(second))
    assert segmenter.started.wait(10)
    assert rig.worker.check() == ""
    rig.clock.now_s += 31.0


def counted(rig):
    return {what: n for what, n in rig.health.counts.items() if n}


def test_thread_that_hangs_is_left_behind_and_the_next_engine_segments_what_waits(hanging):
    stuck = Bones()
    rig = hanging(stuck, Bones())
    rig.worker.submit(good(1))
    wait(lambda: rig.health.counts["segmented"] == 1)
    hang(rig, stuck, 2)
    rig.worker.submit(good(3))
    assert rig.worker.describe() == {"watchdog": "volume for 31.0 s of at most 30", "volumes_in_work": 2, "hangs": 0}
    assert rig.worker.check() == ""
    wait(lambda: rig.health.counts["segmented"] == 2)
    assert stamps(rig.outlet) == [1, 3]
    assert rig.health.last_error == "volume: bones on cpu hangs: no result for 30 s; its thread is left behind"
    assert rig.left_behind.count == 1
    assert rig.worker.describe() == {"watchdog": "idle", "volumes_in_work": 0, "hangs": 1}

    stuck.gate.set()  # it comes back after all: too late
    wait(lambda: rig.left_behind.count == 0)
    assert stamps(rig.outlet) == [1, 3]
    assert counted(rig) == {"seen": 3, "segmented": 2, "failed": 1}


def test_an_engine_is_made_at_once_after_a_hang_even_if_no_volume_waits(hanging):
    stuck, fresh = Bones(), Bones()
    rig = hanging(stuck, fresh)
    hang(rig, stuck, 1)
    asked = []
    rig.keeper.segmenter = lambda: asked.append(1) or fresh
    assert rig.worker.check() == ""
    wait(lambda: asked)
    assert counted(rig) == {"seen": 1, "failed": 1}


def test_slow_is_not_stuck_while_an_engine_is_being_built(hanging):
    slow = Bones()
    rig = hanging(slow)
    rig.keeper.building = True
    hang(rig, slow, 1)
    assert rig.worker.check() == ""
    assert rig.worker.describe()["watchdog"] == "building for 31.0 s of at most 600"
    slow.gate.set()
    wait(lambda: rig.health.counts["segmented"] == 1)
    assert (rig.left_behind.count, rig.health.counts["failed"]) == (0, 0)


def test_what_hangs_outside_the_network_costs_no_engine(hanging, monkeypatch):
    segmenter = Bones()
    rig = hanging(segmenter)
    there, release = threading.Event(), threading.Event()
    shapes = pipeline.shapes

    def stuck(*arguments):
        there.set()
        assert release.wait(10)
        return shapes(*arguments)

    monkeypatch.setattr(pipeline, "shapes", stuck)
    rig.worker.submit(good(1))
    assert there.wait(10)
    monkeypatch.setattr(pipeline, "shapes", shapes)
    rig.clock.now_s += 31.0
    assert rig.worker.check() == ""
    assert rig.health.last_error == "volume: surfaces hangs: no result for 30 s; its thread is left behind"
    assert (rig.worker.describe()["hangs"], rig.keeper.hangs) == (1, 0)
    rig.worker.submit(good(2))
    wait(lambda: rig.health.counts["segmented"] == 1)
    release.set()
    wait(lambda: rig.left_behind.count == 0)
    assert stamps(rig.outlet) == [2]
    assert counted(rig) == {"seen": 2, "segmented": 1, "failed": 1}


def test_too_many_hangs_are_the_end_of_it(hanging):
    stuck, also = Bones(), Bones()
    rig = hanging(stuck, also, max_hangs=1)
    hang(rig, stuck, 1)
    assert rig.worker.check() == ""
    hang(rig, also, 2)
    rig.worker.submit(good(3))
    assert rig.worker.check().startswith("gave up after 2 hangs; the last one: volume: bones on cpu hangs")
    assert not rig.worker.again()
    assert rig.worker.describe()["watchdog"] == "off"
    assert counted(rig) == {"seen": 3, "failed": 2, "ignored": 1}


def test_every_engine_gets_its_turn_though_each_hangs(hanging):
    segmenters = [Bones() for _ in range(4)]
    rig = hanging(*segmenters)
    for second, segmenter in enumerate(segmenters[:3], 1):
        hang(rig, segmenter, second)
        assert rig.worker.check() == ""
    rig.worker.submit(good(4))
    wait(lambda: rig.health.counts["segmented"] == 1)
    assert counted(rig) == {"seen": 4, "segmented": 1, "failed": 3}


def test_no_thread_to_go_on_with_is_the_end_of_it(hanging, monkeypatch):
    stuck, also = Bones(), Bones()
    rig = hanging(stuck, also, Bones())

    def no_thread(*_, **__):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threedme_ros.nodes.volume_worker.Worker", no_thread)
    hang(rig, stuck, 1)
    assert rig.worker.check() == ""  # one was there before
    hang(rig, also, 2)
    rig.worker.submit(good(3))
    assert rig.worker.check().startswith("no thread stands by to go on; volume: bones on cpu hangs")
    assert counted(rig) == {"seen": 3, "failed": 2, "ignored": 1}


def test_a_thread_that_never_starts_is_found_and_its_volume_counted(hanging, monkeypatch):
    stuck, release, there = Bones(), threading.Event(), threading.Event()
    rig = hanging(stuck, Bones())

    def never(*_, **__):
        there.set()
        assert release.wait(10)
        raise RuntimeError("too late")

    hang(rig, stuck, 1)
    rig.worker.submit(good(2))
    monkeypatch.setattr("threedme_ros.nodes.volume_worker.Worker", never)
    assert rig.worker.check() == ""
    assert there.wait(10)
    assert rig.worker.check() == ""
    rig.clock.now_s += 31.0
    assert rig.worker.check().startswith("no thread stands by to go on; volume: standby thread hangs")
    assert counted(rig) == {"seen": 2, "failed": 2}
    release.set()


def test_no_engine_left_after_a_hang_is_the_end_of_it(hanging):
    stuck = Bones()
    rig = hanging(stuck)
    hang(rig, stuck, 1)
    wait(lambda: rig.worker.check() == "no engine is left")
    assert counted(rig) == {"seen": 1, "failed": 1}


def test_thread_still_busy_at_the_end_is_left_behind_and_everything_counted(hanging):
    stuck = Bones()
    rig = hanging(stuck)
    hang(rig, stuck, 1)
    rig.worker.submit(good(2))
    rig.worker.stop(0.05)
    assert rig.left_behind.count == 1
    assert counted(rig) == {"seen": 2, "failed": 1, "ignored": 1}


def test_error_while_telling_of_an_error_does_not_end_the_thread(rig):
    worker, segmenter, health, outlet = rig

    def no_memory(*_):
        raise MemoryError

    segmenter.error, outlet.error = RuntimeError("boom"), no_memory
    worker.submit(good(1))
    wait(lambda: health.counts["failed"] == 1)
    segmenter.error = SystemExit("a library that ends the process")
    worker.submit(good(2))
    wait(lambda: health.counts["failed"] == 2)
    segmenter.error = None
    worker.submit(good(3))
    wait(lambda: health.counts["segmented"] == 1)


def test_odd_stamps_are_counted_and_the_volume_that_arrives_last_is_shown(rig):
    worker, _, health, outlet = rig
    for count, second in enumerate((7, 7, 3, 500, 8), 1):
        worker.submit(good(second))
        wait(lambda count=count: health.counts["segmented"] == count)
    assert stamps(outlet) == [7, 7, 3, 500, 8]
    status = {p.key: p.value for p in health.status("n", "active", 0.0, {}).values}
    assert (status["stamps_repeated"], status["stamps_reversed"], status["stamps_ahead"]) == ("1", "2", "1")
    assert any(line.startswith("stamp 3.000 is 4.000 s before the one before | ") for line in outlet.lines)


def test_a_thousand_bad_volumes_are_a_few_log_lines_that_count_them(rig):
    worker, _, health, outlet = rig
    for _ in range(1000):
        worker.submit(volume_message(IMAGE, Time()))
    outlet.log.flush(everything=True)
    assert health.counts["refused"] == 1000
    lines = [parse_log_line(line) for line in outlet.lines]
    assert len(lines) < 20
    assert {line["event"] for line in lines} == {"volume_refused"}
    assert sum(int(line.get("suppressed", 1)) for line in lines) == 1000
    assert lines[-1]["text"].startswith("volume refused: header.stamp 0.0") and lines[-1]["frame"] == "patient"
