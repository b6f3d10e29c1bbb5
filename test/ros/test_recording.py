"""A recording over real DDS, made again bit for bit; and what is not as it was recorded is found."""

import json
import shutil
import sqlite3

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("rosbags")
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from perceiving import Perceiving, next_stamp
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from threedme_ros.cli import main
from threedme_ros.inference.made_by import MadeBy
from threedme_ros.nodes.bag import find_bags
from threedme_ros.nodes.messages import volume_message
from threedme_ros.phantom import phantom
from threedme_ros.volume_io import FORMATS

SHAPE, SPACING_MM = (32, 28, 30), (12.0, 10.0, 14.0)


@pytest.fixture(scope="module")
def recorded(domain, random_checkpoint, tmp_path_factory):
    """(folder, sent, received, diagnostics of the node and of its recording): five good volumes, one twice, one bad."""
    folder = tmp_path_factory.mktemp("recorded")
    process = domain.start(
        "perception",
        *["-r", "volume:=/scanner/volume", "-r", "__ns:=/theatre", "--record", str(folder)],
        checkpoint=random_checkpoint,
        engine="torch",
        max_faces=400,
    )
    node = Perceiving(domain, process, "/theatre/perception")
    node.publisher = domain.node.create_publisher(type(volume_message(image(0), Time(sec=1))), "/scanner/volume", 1)
    node.wait_for_subscription()
    sent = []
    topics = ("trace", "labels", "confidence", "overlay", "anatomy/markers")
    for number, format in enumerate((*FORMATS, "nifti", "nifti")):
        sent.append(volume_message(image(number), next_stamp(), format))
        node.send(sent[-1])
        domain.spin_until(lambda: all(len(node.received[topic]) == len(sent) for topic in topics), 60.0)
    bad = volume_message(image(0), next_stamp())
    bad.data = bad.data[:500]
    node.send(bad)
    domain.spin_until(lambda: node.count("refused") == 1, 60.0)
    told, recording = node.diagnostics, node.said_of("recording")
    assert process.interrupt() == 0, process.output()
    return folder, [*sent, bad], node.received, told, recording


def image(seed: int):
    return phantom(SHAPE, SPACING_MM, seed=seed)[0]


def replayed(capsys, folder, checkpoint) -> tuple[int, str]:
    status = main(["replay", str(folder), "--checkpoint", str(checkpoint)])
    captured = capsys.readouterr()
    return status, captured.out + captured.err


def test_every_volume_and_every_output_is_in_the_bag_byte_for_byte(recorded):
    folder, sent, received, _, recording = recorded
    store = get_typestore(Stores.ROS2_KILTED)
    found: dict[str, list] = {}
    (file,) = find_bags(folder)
    with Reader(file.parent) as reader:
        for connection, _, data in reader.messages():
            found.setdefault(connection.topic, []).append(store.deserialize_cdr(data, connection.msgtype))
    assert [bytes(m.data) for m in found["/scanner/volume"]] == [bytes(m.data) for m in sent]
    for topic in ("labels", "confidence", "overlay"):
        assert [bytes(m.data) for m in found[f"/theatre/{topic}"]] == [bytes(m.data) for m in received[topic]]
        stamps = [m.header.stamp.sec for m in found[f"/theatre/{topic}"]]
        assert stamps == [m.header.stamp.sec for m in sent[:-1]]
    assert len(found["/theatre/anatomy/points"]) == len(found["/theatre/anatomy/obstacles"]) == 5
    markers = found["/theatre/anatomy/markers"]
    assert [len(m.markers) for m in markers] == [len(m.markers) for m in received["anatomy/markers"]]
    assert len(found["/theatre/label_info"]) >= 1 and len(found["/diagnostics"]) > 6
    assert recording["record_missed"] == "0" and recording["recording"] == str(file.parent)
    assert recording["level"] == DiagnosticStatus.OK


def test_each_result_is_tied_to_what_made_it(recorded, random_checkpoint):
    _, sent, received, told, _ = recorded
    for message, labels, trace in zip(sent, received["labels"], received["trace"], strict=False):
        made_by = MadeBy.from_json(trace.data)
        assert (made_by.engine, made_by.precision, made_by.device) == ("torch", "fp32", "cpu")
        assert made_by.checkpoint == told["checkpoint"]
        assert json.loads(trace.data)["stamp"]["sec"] == message.header.stamp.sec == labels.header.stamp.sec
        assert made_by.description.encode() in bytes(labels.data[:348])


def test_replay_makes_every_result_again_bit_for_bit(recorded, random_checkpoint, capsys):
    status, said = replayed(capsys, recorded[0], random_checkpoint)
    assert status == 0, said
    assert "6 volumes recorded, 5 with a result: 5 identical, 0 different, 0 not checked" in said


def test_a_volume_that_changed_in_the_bag_is_found(recorded, random_checkpoint, tmp_path, capsys):
    status, said = replayed(capsys, flipped(recorded[0], tmp_path, "/scanner/volume"), random_checkpoint)
    assert status == 1
    assert "4 identical, 0 different, 1 not checked" in said and "not as it was" in said


def test_labels_that_changed_in_the_bag_are_found(recorded, random_checkpoint, tmp_path, capsys):
    status, said = replayed(capsys, flipped(recorded[0], tmp_path, "/theatre/labels"), random_checkpoint)
    assert status == 1
    assert "4 identical, 1 different" in said and "labels of 1 voxels" in said


def test_a_checkpoint_with_a_flipped_bit_and_another_checkpoint_are_refused(
    recorded, random_checkpoint, tmp_path, capsys
):
    damaged = tmp_path / "damaged.safetensors"
    data = bytearray(random_checkpoint.read_bytes())
    data[-1000] ^= 1
    damaged.write_bytes(data)
    status, said = replayed(capsys, recorded[0], damaged)
    assert status == 2 and "hash" in said
    assert main(["replay", str(recorded[0])]) == 2  # the shipped one
    assert "the recording was made by checkpoint" in capsys.readouterr().err


def test_a_folder_without_a_recording_is_refused(tmp_path, random_checkpoint, capsys):
    status, said = replayed(capsys, tmp_path, random_checkpoint)
    assert status == 2 and "no recording" in said


def test_a_recording_that_may_not_grow_any_more_says_so_and_the_anatomy_is_trusted_on(
    domain, random_checkpoint, tmp_path
):
    process = domain.start(
        "perception",
        *["-r", "__ns:=/full"],
        checkpoint=random_checkpoint,
        engine="torch",
        threads=1,
        max_faces=400,
        record=tmp_path,
        record_limit_gb=0.001,
    )
    node = Perceiving(domain, process, "/full/perception")
    node.wait_for_subscription()
    for number in range(1, 7):
        node.segment(image(number))
        assert node.count("segmented") == number
    told = node.said_of("recording")
    assert told["level"] == DiagnosticStatus.ERROR and "recording stopped: the limit" in told["message"]
    assert int(told["record_missed"]) > 0 and int(told["recorded_messages"]) >= 1
    assert "recording" not in node.diagnostics["message"] and node.diagnostics["anatomy"] == "current"
    assert node.diagnostics["level"] != DiagnosticStatus.ERROR  # else planning would distrust every volume
    assert sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()) < 1_200_000
    assert process.interrupt() == 0
    assert "event=recording_stopped" in process.output()


def flipped(folder, tmp_path, topic: str):
    """A copy of the recording whose second message of ``topic`` has one voxel changed."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (file,) = find_bags(copy)
    with sqlite3.connect(file) as connection:
        (row, data) = connection.execute(
            "SELECT m.id, m.data FROM messages m JOIN topics t ON t.id = m.topic_id WHERE t.name = ? "
            "ORDER BY m.timestamp LIMIT 1 OFFSET 3",
            (topic,),
        ).fetchone()
        changed = bytearray(data)
        changed[-5000] ^= 1
        connection.execute("UPDATE messages SET data = ? WHERE id = ?", (bytes(changed), row))
    connection.close()
    return copy
