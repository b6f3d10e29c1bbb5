"""What a click means before any network sees it: its frame, its place, its volume; and a network that hangs."""

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, PointStamped
from std_msgs.msg import Header
from visualization_msgs.msg import Marker

from threedme_ros.nodes.click_session import MAX_CLICKS, ClickError, Session
from threedme_ros.nodes.messages import volume_from_message
from threedme_ros.nodes.prompting import LABELS_TOPIC, MARKERS_TOPIC, Prompting
from threedme_ros.nodes.watchdog import LeftBehind, Limits
from threedme_ros.phantom import phantom
from threedme_ros.volume import MM_PER_M, Volume, VolumeError

PATIENT = Limits(30.0, 600.0)


@pytest.fixture
def volume() -> Volume:
    return phantom((20, 16, 22), (9.0, 8.0, 9.5))[0]


class Node:
    """As much of a node as clicks need."""

    def __init__(self):
        self.warnings, self.published, self.recorded = [], 0, []

    def create_service(self, *_):
        pass

    @property
    def log(self):
        return self

    def info(self, event, text, **fields):
        self.warnings.append(text)

    def publish_health(self):
        self.published += 1

    def record(self, topic, message):
        self.recorded.append(topic)


class QuarterTurn:
    """TF that knows the camera: turned by 90 degrees about Superior, 10 mm to the right of the patient's origin."""

    def transform(self, frame_id, into):
        if (frame_id, into) != ("camera", "patient"):
            return None
        matrix = np.eye(4)
        matrix[:2, :2], matrix[0, 3] = [[0, -1], [1, 0]], 0.010
        return matrix


@pytest.fixture
def prompting(volume) -> Prompting:
    node = Node()
    prompting = Prompting(node, node.warnings.append, LeftBehind())
    prompting._segmenter = SimpleNamespace(description="engine=none")  # no test here runs it
    prompting.new_volume(volume, Header(frame_id="patient"))
    return prompting


def click(x: float, y: float, z: float, frame_id: str = "patient") -> PointStamped:
    return PointStamped(header=Header(frame_id=frame_id), point=Point(x=x, y=y, z=z))


def middle_m(volume: Volume) -> np.ndarray:
    return volume.grid.to_mm(np.array([[10, 8, 11]]))[0] / MM_PER_M


def test_a_click_in_the_patient_frame_is_taken_as_it_is(prompting, volume):
    x, y, z = middle_m(volume)
    prompting._on_foreground(click(x, y, z))
    assert prompting._session.points_m == ((x, y, z),)
    assert not prompting._node.warnings


def test_a_click_in_another_frame_is_turned_and_moved_by_tf(prompting, volume):
    prompting._frames = QuarterTurn()
    x, y, z = middle_m(volume)
    prompting._on_foreground(click(y, -(x - 0.010), z, "camera"))
    np.testing.assert_allclose(prompting._session.points_m, [(x, y, z)], atol=1e-12)
    prompting._on_foreground(click(0.0, 0.0, 0.0, "elsewhere"))
    assert "frame 'elsewhere': expected 'patient', or one that TF can bring there" in prompting._node.warnings[-1]
    assert len(prompting._session.points_m) == 1


@pytest.mark.parametrize("frame_id", ["camera", ""])
def test_without_tf_another_frame_is_refused_with_what_to_install(prompting, frame_id):
    prompting._on_foreground(click(0.0, 0.0, 0.0, frame_id))
    assert f"frame {frame_id!r}: expected 'patient'; tf2_ros" in prompting._node.warnings[-1]
    assert "apt install" in prompting._node.warnings[-1]
    assert prompting._node.published == 1


def test_without_a_decoder_for_the_checkpoint_every_click_says_why(prompting):
    prompting._segmenter, prompting._why_not = None, "no prompt decoder for checkpoint 0123"
    prompting._on_foreground(click(0.0, 0.0, 0.0))
    assert prompting._node.warnings == ["click refused: no prompt decoder for checkpoint 0123"]
    assert prompting.describe() == {
        "prompt": "unavailable: no prompt decoder for checkpoint 0123",
        "prompt_made_by": "",
    }


def test_the_same_voxels_in_the_same_place_are_the_same_volume(volume):
    session = Session(volume, Header())
    assert session.shows(Volume(volume.voxels.copy(), volume.affine))
    moved = volume.affine.copy()
    moved[0, 3] += 1
    assert not session.shows(Volume(volume.voxels, moved))
    assert not session.shows(Volume(volume.voxels, volume.affine, "another"))
    assert not session.shows(volume.with_voxels(volume.voxels + 1))


def test_another_volume_forgets_the_clicks_and_the_same_one_takes_its_stamp(prompting, volume):
    prompting._on_foreground(click(*middle_m(volume)))
    header = Header(frame_id="patient")
    header.stamp.sec = 7
    prompting.new_volume(Volume(volume.voxels.copy(), volume.affine), header)
    assert (len(prompting._session.points_m), prompting._session.header.stamp.sec) == (1, 7)
    assert prompting._session.volume is volume  # whose encoding is kept
    prompting.new_volume(volume.with_voxels(volume.voxels + 1), header)
    assert prompting._session.points_m == ()
    assert prompting.describe() == {"prompt": "of an earlier volume", "prompt_made_by": "engine=none"}


def test_a_background_click_needs_a_structure_to_correct(volume):
    session = Session(volume, Header())
    with pytest.raises(ClickError, match="inside a structure first"):
        session.clicked(middle_m(volume), False)
    assert session.clicked(middle_m(volume), True).clicked(middle_m(volume), False).foreground == (True, False)


def test_a_flood_of_clicks_ends(volume):
    session = Session(volume, Header(frame_id="patient"))
    for _ in range(MAX_CLICKS):
        session = session.clicked(middle_m(volume), True)
    with pytest.raises(ClickError, match=f"{MAX_CLICKS} clicks on this structure: expected at most {MAX_CLICKS}"):
        session.clicked(middle_m(volume), True)


def test_a_huge_frame_name_does_not_fill_the_log(prompting, volume):
    prompting._frames = QuarterTurn()
    click = PointStamped(header=Header(frame_id="x" * 100_000), point=Point())
    prompting._on_foreground(click)
    assert len(prompting._node.warnings[-1]) < 300


class Stuck:
    """Hangs in the stage named until it is released."""

    volume = None

    def __init__(self, stage: str):
        self.stage, self.there, self.release = stage, threading.Event(), threading.Event()

    def _stuck(self, stage: str) -> None:
        if stage == self.stage:
            self.there.set()
            assert self.release.wait(10)

    def set_volume(self, volume):
        self._stuck("encode")
        self.volume = volume

    def click(self, points_mm, foreground):
        self._stuck("click")
        raise VolumeError("nothing there")


@pytest.mark.parametrize(("stage", "limits"), [("click", Limits(0.05, 600.0)), ("encode", Limits(0.01, 0.05))])
def test_a_click_that_hangs_is_given_up_and_later_ones_are_told_why(prompting, volume, stage, limits):
    stuck, node = Stuck(stage), prompting._node
    prompting._segmenter, prompting._limits = stuck, limits
    node.create_subscription = node.destroy_subscription = lambda *_: None
    prompting.start()
    prompting._on_foreground(click(*middle_m(volume)))
    assert stuck.there.wait(10)
    end = time.monotonic() + 10
    while not prompting._left_behind.count:
        assert time.monotonic() < end
        prompting.check()
        time.sleep(0.01)
    assert node.warnings == [f"clicks: {prompting._why_not}"]
    assert "the network of clicks hangs: " in prompting.describe()["prompt"]
    prompting._on_foreground(click(*middle_m(volume)))
    assert node.warnings[-1] == f"click refused: {prompting._why_not}"
    prompting.stop(1.0)
    stuck.release.set()


def started(prompting: Prompting, segmenter, limits: Limits = PATIENT) -> Prompting:
    node = prompting._node
    node.create_subscription = node.destroy_subscription = lambda *_: None
    node.alive = lambda: True
    prompting._segmenter, prompting._limits = segmenter, limits
    prompting.start()
    return prompting


def wait(met) -> None:
    end = time.monotonic() + 10
    while not met():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_an_encoding_that_hung_does_not_lengthen_the_limit_of_later_clicks(prompting, volume):
    stuck, later = Stuck("encode"), Stuck("click")
    started(prompting, stuck)._on_foreground(click(*middle_m(volume)))
    assert stuck.there.wait(10)
    prompting.stop(0.0)
    assert "the network of clicks was still busy when the node stopped" in prompting._node.warnings[-1]
    started(prompting, later, Limits(0.05, 600.0))._on_foreground(click(*middle_m(volume)))
    assert later.there.wait(10)

    def given_up() -> bool:
        prompting.check()
        return prompting._left_behind.count == 2

    wait(given_up)
    stuck.release.set()
    later.release.set()


class Full:
    """Out of memory at every click."""

    volume = None
    description = "engine=full"

    def __init__(self):
        self.clicks = 0

    def set_volume(self, volume):
        self.volume = volume

    def click(self, points_mm, foreground):
        self.clicks += 1
        raise MemoryError


def test_clicks_go_on_after_an_error_of_which_not_even_word_could_be_sent(prompting, volume):
    def full(*_):
        raise MemoryError

    prompting._warn = prompting._node.publish_health = full
    segmenter = Full()
    started(prompting, segmenter)
    for count in (1, 2):
        prompting._on_foreground(click(*middle_m(volume)))
        wait(lambda count=count: segmenter.clicks == count)
    prompting.stop(10.0)
    assert prompting._left_behind.count == 0


class Publisher:
    def __init__(self):
        self.published = []

    def publish(self, message):
        self.published.append((threading.current_thread().name, message))


@pytest.mark.parametrize("active", [True, False])
def test_what_was_cleared_is_taken_away_by_the_worker_as_soon_as_there_is_one(prompting, volume, active):
    labels, markers = Publisher(), Publisher()
    prompting._outputs = {LABELS_TOPIC: labels, MARKERS_TOPIC: markers}
    prompting.new_volume(volume, Header(frame_id="patient", stamp=Time(sec=7)))
    prompting._on_foreground(click(*middle_m(volume)))
    prompting._published = prompting._session
    if active:
        started(prompting, Full())
    response = prompting._on_clear(None, SimpleNamespace())
    assert (response.success, response.message) == (True, "1 clicks cleared")
    if not active:
        assert labels.published == []
        started(prompting, Full())
    wait(lambda: markers.published)
    prompting.stop(10.0)
    ((thread, message),) = labels.published
    assert thread == "prompts"
    mask = volume_from_message(message)
    assert mask.shape == volume.shape
    assert not mask.voxels.any()
    ((_, shown),) = markers.published
    assert {marker.action for marker in shown.markers} == {Marker.DELETE}
    started(prompting, Full()).stop(10.0)
    assert len(labels.published) == 1  # once is enough


def test_clearing_without_memory_for_diagnostics_is_answered(prompting):
    def full():
        raise MemoryError

    prompting._node.publish_health = full
    assert prompting._on_clear(None, SimpleNamespace()).success


def test_a_slow_encoding_is_no_hang(prompting, volume):
    stuck, node = Stuck("encode"), prompting._node
    prompting._segmenter, prompting._limits = stuck, Limits(0.01, 600.0)
    node.create_subscription = node.destroy_subscription = lambda *_: None
    node.alive = lambda: True
    prompting.start()
    prompting._on_foreground(click(*middle_m(volume)))
    assert stuck.there.wait(10)
    time.sleep(0.05)
    prompting.check()
    stuck.release.set()
    prompting.stop(10.0)
    assert node.warnings == ["click refused: nothing there"]
    assert prompting._left_behind.count == 0
