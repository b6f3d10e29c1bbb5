"""The perception node under a lifecycle manager: each transition, and configure failing before it succeeds."""

import json
import shutil

import pytest

pytest.importorskip("rclpy")
from lifecycle_msgs.msg import Transition
from perceiving import Perceiving, next_stamp
from std_srvs.srv import Trigger

from threedme_ros.nodes.messages import volume_message
from threedme_ros.phantom import phantom

NAME = "/perception"


@pytest.fixture(scope="module")
def image():
    return phantom((20, 16, 18), (18.0, 16.0, 24.0))[0]


def start(domain, checkpoint, **parameters):
    return domain.start(
        "perception", checkpoint=checkpoint, engine="torch", threads=1, max_faces=200, autostart=False, **parameters
    )


def test_every_transition(domain, random_checkpoint, image, tmp_path):
    path = tmp_path / "late.safetensors"
    process = start(domain, path)
    assert domain.state(NAME) == "unconfigured"

    assert not domain.change_state(NAME, Transition.TRANSITION_CONFIGURE)
    assert domain.state(NAME) == "unconfigured"
    process.wait_for(f"not inactive: checkpoint {path}: no such file")

    path.write_bytes(b"not a checkpoint")
    assert not domain.change_state(NAME, Transition.TRANSITION_CONFIGURE)
    shutil.copy(random_checkpoint, path)
    assert domain.change_state(NAME, Transition.TRANSITION_CONFIGURE)
    assert domain.state(NAME) == "inactive"
    assert not domain.call(Trigger, f"{NAME}/segment").success

    assert domain.change_state(NAME, Transition.TRANSITION_ACTIVATE)
    node = Perceiving(domain, process, NAME)
    node.wait_for_subscription()
    node.segment(image)

    assert domain.change_state(NAME, Transition.TRANSITION_DEACTIVATE)
    domain.spin_until(lambda: node.publisher.get_subscription_count() == 0, what="still subscribed while inactive")
    node.send(volume_message(image, next_stamp()))
    domain.spin_until(lambda: node.diagnostics["state"] == "inactive")
    assert len(node.received["labels"]) == 1
    assert not domain.call(Trigger, f"{NAME}/segment").success

    assert domain.change_state(NAME, Transition.TRANSITION_ACTIVATE)
    node.wait_for_subscription()
    node.segment(image)

    assert domain.set_parameter(NAME, "margin_mm.aorta", 21.5).successful
    assert domain.change_state(NAME, Transition.TRANSITION_DEACTIVATE)
    assert domain.change_state(NAME, Transition.TRANSITION_CLEANUP)
    domain.spin_until(lambda: not domain.node.get_publishers_info_by_topic("/labels"), what="publishers are left")
    assert node.refresh()["anatomy"] == "none"
    assert domain.change_state(NAME, Transition.TRANSITION_CONFIGURE)
    assert domain.change_state(NAME, Transition.TRANSITION_ACTIVATE)
    node.wait_for_subscription()
    node.segment(image)
    margins = {row["name"]: row["margin_mm"] for row in json.loads(node.last("label_info").data)["structures"]}
    assert margins["aorta"] == 21.5  # what somebody set does not fall back to the table in silence

    assert domain.change_state(NAME, Transition.TRANSITION_ACTIVE_SHUTDOWN)
    assert domain.state(NAME) == "finalized"
    assert process.interrupt() == 0


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"device": "abacus"}, "abacus"),
        ({"modality": "smell"}, "modality 'smell': expected one of"),
    ],
)
def test_configure_names_what_it_cannot_use(domain, random_checkpoint, parameters, reason):
    arguments = {"checkpoint": random_checkpoint, "engine": "torch", "autostart": True, **parameters}
    process = domain.start("perception", "-r", "__ns:=/broken", **arguments)
    process.wait_for("not inactive: ")
    assert reason in process.output()
    assert process.interrupt() == 0


def test_number_out_of_range_is_one_line_and_exit_status_1(domain):
    process = domain.start("perception", threads=-1)
    assert process.wait() == 1
    assert "threads" in process.output()
    assert "Traceback" not in process.output()


def test_ctrl_c_during_a_volume_is_a_clean_end(domain, random_checkpoint):
    process = domain.start("perception", "-r", "__ns:=/busy", checkpoint=random_checkpoint, engine="torch", threads=1)
    node = Perceiving(domain, process, "/busy/perception")
    node.wait_for_subscription()
    node.send(volume_message(phantom((96, 80, 64))[0], next_stamp()))
    domain.spin_until(lambda: node.count("seen") == 1 or node.received["labels"], what="volume not seen")
    assert process.interrupt() == 0
    assert "Traceback" not in process.output()
