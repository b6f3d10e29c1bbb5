"""The planning scene node as a process, before a planning scene in another one that refuses, is silent and restarts.

Perception is played by the test: what it publishes, and what it says of itself.
"""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

pytest.importorskip("rclpy")
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import TransformStamped
from perceiving import next_stamp
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import String
from std_srvs.srv import Trigger

from threedme_ros.nodes.messages import label_info_message, volume_message
from threedme_ros.nodes.qos import RESULTS
from threedme_ros.phantom import phantom

pytest.importorskip("moveit_msgs", reason="moveit_msgs is not installed: apt install ros-$ROS_DISTRO-moveit-msgs")

FAST = {"max_faces": 3000, "timeout_s": 1.0, "retry_first_s": 0.1, "retry_longest_s": 0.4, "settle_s": 0.2}
FAST |= {"gone_after": 3, "check_period_s": 0.3}
OBJECTS = {"anatomy_kidney_right", "anatomy_aorta", "anatomy_targets"}


class Stub:
    """Another process with a planning scene, the only one: a new one ends those before. ``told``: what it said."""

    running: ClassVar[list] = []

    def __init__(self, domain, folder) -> None:
        while self.running:
            self.running[-1].kill()
        self.running.append(self)
        self.domain = domain
        self.log = folder / f"stub_{time.monotonic_ns()}.log"
        self.behaviour = domain.node.create_publisher(String, "/stub/behave", 10)
        self.popen = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "stub_move_group.py")],
            env=domain.environment,
            stdout=self.log.open("w"),
            stderr=subprocess.STDOUT,
        )

    @property
    def told(self) -> list[dict]:
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def requests(self, since: int = 0) -> list[dict]:
        return [line for line in self.told[since:] if "objects" in line]

    def changes(self, since: int = 0, success: bool = True) -> list[dict]:
        return [o for line in self.requests(since) if line["success"] == success for o in line["objects"]]

    def behave(self, how: str) -> int:
        """Returns how much it had said before it obeyed."""
        self.domain.spin_until(self.behaviour.get_subscription_count, 30.0, "the stub does not listen")
        said = len(self.told)
        self.behaviour.publish(String(data=how))
        self.domain.spin_until(lambda: any(line.get("now") == how for line in self.told[said:]), 10.0, f"not {how}")
        return said

    def kill(self) -> None:
        if self in self.running:
            self.running.remove(self)
            self.popen.kill()
            self.popen.wait()


class Source:
    """What the perception node would publish in a namespace."""

    def __init__(self, domain, anatomy, namespace="") -> None:
        self.domain, self.namespace = domain, namespace
        create = domain.node.create_publisher
        self.labels = create(CompressedImage, f"{namespace}/labels", RESULTS)
        self.confidence = create(CompressedImage, f"{namespace}/confidence", RESULTS)
        self.label_info = create(String, f"{namespace}/label_info", RESULTS)
        self.diagnostics = create(DiagnosticArray, "/diagnostics", 10)
        self.label_info.publish(label_info_message(anatomy, {}))
        self.alarm = ""
        domain.node.create_timer(0.3, self.speak)

    def show(self, labels, alarm: str = "") -> None:
        """One volume; perception goes on speaking of itself, as after this volume."""
        self.alarm = alarm
        stamp = next_stamp()
        self.labels.publish(volume_message(labels, stamp))
        self.confidence.publish(volume_message(labels.with_voxels(np.full(labels.shape, 250, np.uint8)), stamp))
        self.domain.spin_until(pause(0.7), 2.0)

    def speak(self) -> None:
        level = DiagnosticStatus.WARN if self.alarm else DiagnosticStatus.OK
        status = DiagnosticStatus(name=f"{self.namespace}/perception", level=level, message=self.alarm)
        self.diagnostics.publish(DiagnosticArray(status=[status]))


def pause(seconds: float):
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


@pytest.fixture(scope="module")
def volumes(anatomy):
    """Labels by name: the whole, with a kidney a voxel higher, and without it. Two no-go structures and a target."""
    _, labels = phantom((44, 36, 36), (6.0, 6.0, 8.0))
    ids = [anatomy[name].id for name in ("kidney_right", "aorta", "liver")]
    whole = np.where(np.isin(labels.voxels, ids), labels.voxels, 0).astype(np.uint8)
    kidney = whole == ids[0]
    without = np.where(kidney, 0, whole).astype(np.uint8)
    shifted = np.where(np.roll(kidney, 1, 2), ids[0], without).astype(np.uint8)
    taller = np.where(np.roll(kidney, 1, 2) | kidney, ids[0], without).astype(np.uint8)
    named = {"whole": whole, "without": without, "shifted": shifted, "taller": taller}
    return {name: labels.with_voxels(voxels) for name, voxels in named.items()}


@pytest.fixture(scope="module")
def stub(domain, tmp_path_factory):
    stub = Stub(domain, tmp_path_factory.mktemp("stub"))
    yield stub
    stub.kill()


@pytest.fixture(scope="module")
def node(domain, stub):
    """Never stale: the tests take their time."""
    return domain.start("planning_scene", stale_after_s=1e5, **FAST)


@pytest.fixture(scope="module")
def source(domain, node, anatomy):
    source = Source(domain, anatomy)
    for publisher in (source.labels, source.confidence, source.label_info, source.diagnostics):
        domain.spin_until(publisher.get_subscription_count, 90.0, "the node does not listen")
    return source


@pytest.fixture(scope="module")
def spoken(domain, source):
    return domain.collect(DiagnosticArray, "/diagnostics", 10)


def said(spoken, name="/planning_scene") -> DiagnosticStatus:
    """The newest; STALE before the first."""
    found = (s for array in reversed(spoken) for s in array.status if s.name == name)
    return next(found, DiagnosticStatus(level=DiagnosticStatus.STALE))


def values(spoken, name="/planning_scene") -> dict[str, str]:
    return {pair.key: pair.value for pair in said(spoken, name).values}


def wait_until_kept(domain, stub, wanted, since: int = 0) -> list[dict]:
    """Until each of ``wanted`` (operation, id) was acknowledged since then; those changes."""
    seen = lambda: {(o["operation"], o["id"]) for o in stub.changes(since)}  # noqa: E731
    domain.spin_until(lambda: seen() >= set(wanted), 40.0, f"not acknowledged: {wanted}")
    return stub.changes(since)


def test_each_no_go_structure_becomes_an_object_grown_by_its_margin(domain, stub, source, volumes, anatomy, spoken):
    source.show(volumes["whole"])
    added = {o["id"]: o for o in wait_until_kept(domain, stub, [("add", name) for name in OBJECTS])}
    assert set(added) == OBJECTS
    assert all(line["is_diff"] for line in stub.requests())
    for name in ("kidney_right", "aorta"):
        message, structure = added[f"anatomy_{name}"], anatomy[name]
        where = volumes["whole"].grid.to_mm(np.argwhere(volumes["whole"].voxels == structure.id))
        assert message["frame_id"] == "patient"
        np.testing.assert_allclose(np.array(message["place_m"]) * 1e3, where.mean(0), atol=0.1)
        placed_mm = (np.array(message["vertices_m"]) + message["place_m"]) * 1e3
        reach = np.array(volumes["whole"].spacing_mm) / 2 + structure.margin_mm
        np.testing.assert_allclose(placed_mm.min(0), where.min(0) - reach, atol=3.0)
        np.testing.assert_allclose(placed_mm.max(0), where.max(0) + reach, atol=3.0)
        assert 100 < len(message["faces"]) <= 3000
        np.testing.assert_allclose(message["colour"], [*(c / 255 for c in structure.colour), 0.6], atol=1e-6)
    domain.spin_until(lambda: said(spoken).level == DiagnosticStatus.OK, 10.0, "not well")
    assert said(spoken).message == "3 objects kept"


def test_targets_are_subframes_inside_the_target(stub, volumes, anatomy):
    (message,) = [o for o in stub.changes() if o["id"] == "anatomy_targets"]
    assert set(message["subframes_m"]) == {"liver"}
    place_mm = (np.array(message["place_m"]) + message["subframes_m"]["liver"]) * 1e3
    index = tuple(np.rint(volumes["whole"].grid.to_index(place_mm[None])[0]).astype(int))
    assert volumes["whole"].voxels[index] == anatomy["liver"].id
    assert message["shapes"] == 1
    assert message["colour"][3] == 0


def test_the_same_anatomy_again_sends_nothing(domain, stub, source, volumes):
    before = len(stub.requests())
    for _ in range(3):
        source.show(volumes["whole"])
    domain.spin_until(pause(1.0), 2.0)
    assert len(stub.requests()) == before


def test_a_new_registration_moves_everything_and_then_clears_the_octomap(domain, stub, source):
    since = len(stub.told)
    assert domain.call(Trigger, "/planning_scene/registration_changed").success
    moved = wait_until_kept(domain, stub, [("move", name) for name in OBJECTS], since)
    assert {(o["operation"], o["shapes"]) for o in moved} == {("move", 0)}
    assert len(stub.requests(since)) == 1
    added = {o["id"]: o["place_m"] for o in stub.changes() if o["operation"] == "add"}
    assert {o["id"]: o["place_m"] for o in moved} == added
    domain.spin_until(lambda: "octomap" in stub.told[-1], 10.0, "the octomap was not cleared")
    assert [("octomap" in line) for line in stub.told[since:]] == [False, True]


def test_anatomy_that_only_moved_is_moved(domain, stub, source, volumes):
    since = len(stub.told)
    source.show(volumes["shifted"])
    changes = wait_until_kept(domain, stub, [("move", "anatomy_kidney_right")], since)
    assert [o["id"] for o in changes if o["operation"] == "add" and "kidney" in o["id"]] == []


def test_refusals_are_repeated_with_pauses_until_it_is_taken(domain, stub, source, volumes, spoken):
    since = stub.behave("refuse")
    source.show(volumes["taller"])
    domain.spin_until(lambda: len(stub.changes(since, success=False)) >= 5, 20.0, "does not try again")
    times = [line["at_s"] for line in stub.requests(since) for o in line["objects"] if "kidney" in o["id"]]
    pauses = np.diff(times)
    assert pauses[0] >= 0.1
    assert pauses[1:].min() >= 0.2
    domain.spin_until(lambda: "the planning scene refused to add" in said(spoken).message, 10.0, "silent about it")
    assert said(spoken).level == DiagnosticStatus.WARN
    since = stub.behave("ok")
    wait_until_kept(domain, stub, [("add", "anatomy_kidney_right")], since)
    domain.spin_until(lambda: said(spoken).level == DiagnosticStatus.OK, 10.0, "not well again")
    assert int(values(spoken)["refused"]) >= 5


def test_a_silent_server_blocks_nothing_and_is_asked_again(domain, stub, source, volumes, spoken):
    since = stub.behave("silent")
    source.show(volumes["whole"])
    domain.spin_until(lambda: stub.requests(since), 10.0, "not asked")
    began = time.monotonic()
    assert domain.call(Trigger, "/planning_scene/registration_changed").success
    assert time.monotonic() - began < 1.0
    domain.spin_until(lambda: int(values(spoken)["timeouts"]) >= 1, 10.0, "no time-out")
    stub.behave("ok")
    domain.spin_until(lambda: said(spoken).level == DiagnosticStatus.OK, 40.0, "not well again")
    assert {o["id"] for o in stub.changes(since)} >= {"anatomy_kidney_right"}


def test_what_somebody_removed_comes_back(domain, stub, source):
    since = stub.behave("drop anatomy_aorta")
    changes = wait_until_kept(domain, stub, [("add", "anatomy_aorta")], since)
    assert {o["id"] for o in changes} == {"anatomy_aorta"}


def test_gone_once_or_twice_is_kept_and_gone_for_good_is_removed(domain, stub, source, volumes, spoken):
    since = len(stub.told)
    for count in (1, 2):
        source.show(volumes["without"])
        text = f"kidney_right: gone in {count} of 3 volumes; kept"
        domain.spin_until(lambda text=text: text in said(spoken).message, 10.0, "not flagged")
    source.show(replace(volumes["without"]), alarm="field of view too small")
    domain.spin_until(lambda: "field of view too small" in said(spoken).message, 10.0, "no alarm")
    assert [o for o in stub.changes(since) if o["operation"] == "remove"] == []
    source.show(volumes["without"])
    wait_until_kept(domain, stub, [("remove", "anatomy_kidney_right")], since)
    source.show(volumes["whole"])
    wait_until_kept(domain, stub, [("add", "anatomy_kidney_right")], since)


@pytest.mark.parametrize("sources", ["", "none", "9" * 5000])
def test_a_diagnosis_that_is_no_number_is_a_doubt_and_does_not_end_the_node(domain, node, source, spoken, sources):
    said_of_it = DiagnosticStatus(name="/perception", values=[KeyValue(key="volume_sources", value=sources)])
    timer = domain.node.create_timer(0.05, lambda: source.diagnostics.publish(DiagnosticArray(status=[said_of_it])))
    try:
        domain.spin_until(lambda: "expected a number" in said(spoken).message, 10.0, "silent about it")
    finally:
        domain.node.destroy_timer(timer)
    assert said(spoken).level == DiagnosticStatus.WARN
    domain.spin_until(lambda: said(spoken).level == DiagnosticStatus.OK, 20.0, "not well again")
    assert node.popen.poll() is None


def test_a_restarted_server_gets_everything_again(domain, stub, source, spoken, tmp_path):
    stub.kill()
    again = Stub(domain, tmp_path)
    try:
        wait_until_kept(domain, again, [("add", name) for name in OBJECTS])
        domain.spin_until(lambda: said(spoken).level == DiagnosticStatus.OK, 40.0, "not well again")
        domain.spin_until(pause(1.5), 2.0)
        counts = [sum(o["id"] == name for o in again.changes()) for name in OBJECTS]
        assert max(counts) <= 2
    finally:
        again.kill()


def test_without_news_the_anatomy_grows_to_a_limit_and_is_never_cleared(domain, anatomy, volumes, tmp_path, spoken):
    stub = Stub(domain, tmp_path)
    rules = {"stale_after_s": 2.0, "growth_mm_per_s": 1.0, "growth_limit_mm": 3.0, "growth_step_mm": 1.0}
    domain.start("planning_scene", "-r", "__ns:=/or", object_prefix="or_", **FAST, **rules)
    source = Source(domain, anatomy, "/or")
    domain.spin_until(source.labels.get_subscription_count, 90.0, "the node does not listen")
    try:
        source.show(volumes["whole"])
        wait_until_kept(domain, stub, [("add", "or_aorta"), ("add", "or_kidney_right")])
        domain.spin_until(
            lambda: said(spoken, "/or/planning_scene").level == DiagnosticStatus.ERROR, 60.0, "the limit is not told"
        )
        domain.spin_until(lambda: len(sizes(stub, "or_kidney_right")) == 4, 20.0, "not grown in three steps")
        steps = np.diff(sizes(stub, "or_kidney_right"))
        np.testing.assert_allclose(steps, 2.0, atol=1.0)  # a millimetre on either side
        assert "grown to the limit of 3 mm" in said(spoken, "/or/planning_scene").message
        source.show(volumes["without"], alarm="out of scope")
        domain.spin_until(pause(1.0), 2.0)
        assert {o["operation"] for o in stub.changes() if o["id"] != "or_targets"} == {"add"}
        source.show(volumes["whole"])
        domain.spin_until(lambda: len(sizes(stub, "or_kidney_right")) == 5, 20.0, "does not shrink when confirmed")
        assert sizes(stub, "or_kidney_right")[-1] == pytest.approx(sizes(stub, "or_kidney_right")[0], abs=0.5)
    finally:
        stub.kill()


def test_a_patient_that_moves_in_tf_is_moved_in_the_scene(domain, anatomy, volumes, tmp_path, spoken):
    pytest.importorskip("tf2_ros", reason="tf2_ros is not installed: apt install ros-$ROS_DISTRO-tf2-ros-py")
    from tf2_msgs.msg import TFMessage

    stub, name = Stub(domain, tmp_path), "/tf/planning_scene"
    node = domain.start(
        "planning_scene", "-r", "__ns:=/tf", object_prefix="tf_", planning_frame="base_link", stale_after_s=1e5, **FAST
    )
    source = Source(domain, anatomy, "/tf")
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    registration = domain.node.create_publisher(TFMessage, "/tf_static", latched)

    def register(x_m: float) -> None:
        transform = TransformStamped(child_frame_id="patient")
        transform.header.frame_id = "base_link"
        transform.transform.translation.x = x_m
        registration.publish(TFMessage(transforms=[transform]))

    try:
        domain.spin_until(source.labels.get_subscription_count, 90.0, "the node does not listen")
        source.show(volumes["whole"])
        wait_until_kept(domain, stub, [("add", "tf_aorta"), ("add", "tf_targets")])
        domain.spin_until(lambda: "TF does not know" in said(spoken, name).message, 20.0, "TF is not missed")
        assert said(spoken, name).level == DiagnosticStatus.ERROR
        register(0.5)
        domain.spin_until(lambda: said(spoken, name).level == DiagnosticStatus.OK, 20.0, "not well with TF")
        assert {o["operation"] for o in stub.changes()} == {"add"}  # the first registration moves nothing
        since = len(stub.told)
        register(0.503)
        wait_until_kept(
            domain, stub, [("move", "tf_aorta"), ("move", "tf_kidney_right"), ("move", "tf_targets")], since
        )
        domain.spin_until(lambda: "octomap" in stub.told[-1], 10.0, "the octomap was not cleared")
        node.wait_for("patient moved against base_link")
    finally:
        stub.kill()


def test_without_tf2_ros_or_moveit_msgs_the_node_says_what_to_install(domain):
    for package, parameters in (("moveit_msgs", {}), ("tf2_ros", {"planning_frame": "base_link"})):
        process = blocked(domain, package, parameters)
        assert process.returncode == 1
        assert package in process.stderr and "apt install ros-$ROS_DISTRO-" in process.stderr
        assert "Traceback" not in process.stderr


def blocked(domain, package: str, parameters: dict) -> subprocess.CompletedProcess:
    """The node where ``package`` cannot be imported."""
    arguments = [part for name, value in parameters.items() for part in ("-p", f"{name}:={value}")]
    code = (
        f"import sys; sys.modules[{package!r}] = None; from threedme_ros.nodes.planning_scene import main; "
        f"sys.exit(main(['node', '--ros-args', *{arguments!r}]))"
    )
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=domain.environment, capture_output=True, text=True, timeout=90)


def sizes(stub, name: str) -> list[float]:
    """Of the object along R, in mm, each time it was added."""
    return [float(np.ptp(np.array(o["vertices_m"])[:, 0]) * 1e3) for o in stub.changes() if o["id"] == name]
