"""Replay without DDS: bags made by the recorder from what the pipeline gives; over DDS: test/ros/test_recording.py."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("rclpy")
pytest.importorskip("rosbags")
from builtin_interfaces.msg import Time

from threedme_ros.anatomy import Anatomy
from threedme_ros.inference.incremental import IncrementalSegmenter, UpdatePolicy
from threedme_ros.inference.segmenter import Segmenter
from threedme_ros.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from threedme_ros.model.config import ModelConfig, Preprocessing
from threedme_ros.model.threedme import ThreeDME
from threedme_ros.nodes import pipeline
from threedme_ros.nodes import replay as replay_module
from threedme_ros.nodes.bag import BagError, find_bags
from threedme_ros.nodes.messages import trace_message, volume_message
from threedme_ros.nodes.parameters import PerceptionParameters
from threedme_ros.nodes.recording import Recorder
from threedme_ros.nodes.replay import IDENTICAL, UNCHECKED, ReplayError, recorded_volumes, replay
from threedme_ros.phantom import phantom
from threedme_ros.share import share_path
from threedme_ros.volume import Volume

POLICY = UpdatePolicy(sizes=(48,), full_every=0, most=0.7)
"""Windows that suit a small volume."""

IMAGE, STRING = "sensor_msgs/msg/CompressedImage", "std_msgs/msg/String"
TOPICS = {topic: (f"/{topic}", IMAGE) for topic in ("volume", "labels", "confidence")} | {"trace": ("/trace", STRING)}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Checkpoint:
    anatomy = Anatomy.from_yaml(share_path("config/anatomy.yaml"))
    torch.manual_seed(0)
    model = ThreeDME(ModelConfig("small", anatomy.num_classes))
    torch.nn.init.zeros_(model.decoder.head.bias)
    path = tmp_path_factory.mktemp("model") / "random.safetensors"
    save_checkpoint(path, model, anatomy, Preprocessing(spacing_mm=(8.0, 8.0, 8.0)), {})
    return load_checkpoint(path)


@pytest.fixture(scope="module")
def series() -> list[Volume]:
    """A volume, the same again, and three that changed in a corner."""
    first = phantom((100, 30, 30), (8.0, 8.0, 8.0))[0]
    volumes = [first, first]
    for value in (900, 300, 700):
        voxels = volumes[-1].voxels.copy()
        voxels[2:7, 10:16, 10:16] = value
        volumes.append(first.with_voxels(voxels))
    return volumes


@pytest.fixture(autouse=True)
def _policy(monkeypatch):
    monkeypatch.setattr(replay_module, "POLICY", POLICY)


def record(folder: Path, checkpoint: Checkpoint, volumes, change=lambda messages: messages) -> list[str]:
    """What a node with updates would record of ``volumes``; returns what the network saw of each."""
    segmenter = Segmenter(checkpoint, engine="torch", threads=1, min_agreement=0.0)
    incremental = IncrementalSegmenter(segmenter, replace(POLICY, full_every=4))
    settings = pipeline.Settings(PerceptionParameters(max_faces=100), checkpoint.anatomy)
    recorder = Recorder(folder, TOPICS, session="/perception/recording", limit_bytes=10**9, stopped=pytest.fail)
    passes = []
    for number, volume in enumerate(volumes):
        message = volume_message(volume, Time(sec=number + 1))
        results = pipeline.process(message, incremental, settings)
        groups = [
            {"volume": message},
            {"trace": results.trace, "labels": results.labels, "confidence": results.confidence},
        ]
        for group in change(groups):
            recorder.put(group)
        passes.append(results.segmentation.update)
    recorder.close()
    assert recorder.describe()["record_missed"] == 0
    return passes


def test_updates_are_made_again_on_what_came_before_them(tmp_path, checkpoint, series):
    passes = record(tmp_path, checkpoint, series)
    assert passes == ["full", "unchanged", "incremental", "incremental", "full"]  # the last because it is due
    rows = list(replay(tmp_path, checkpoint))
    assert [(row.made_by.update, row.verdict, row.why) for row in rows] == [(each, IDENTICAL, "") for each in passes]
    assert [row.stamp for row in rows] == [f"{n}.000000000" for n in (1, 2, 3, 4, 5)]
    assert recorded_volumes(tmp_path) == 5


def test_an_update_whose_predecessor_is_missing_is_not_checked_and_the_next_full_pass_is(tmp_path, checkpoint, series):
    dropped = iter([False, False, True, False, False])
    record(tmp_path, checkpoint, series, change=lambda groups: groups[1:] if next(dropped) else groups)
    rows = list(replay(tmp_path, checkpoint))
    assert [row.verdict for row in rows] == [IDENTICAL, IDENTICAL, UNCHECKED, UNCHECKED, IDENTICAL]
    assert "its volume is not in the recording" in rows[2].why
    assert "made otherwise here" in rows[3].why


def test_two_volumes_of_one_stamp_are_told_apart_by_their_bytes(tmp_path, checkpoint, series):
    def one_stamp(groups):
        for group in groups:
            for topic, message in group.items():
                if topic != "trace":
                    message.header.stamp = Time(sec=7)
        return groups

    record(tmp_path, checkpoint, series, change=one_stamp)
    assert [row.verdict for row in replay(tmp_path, checkpoint)] == [IDENTICAL] * 5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"device": "cuda:0"}, "only results of a CPU are made again"),
        ({"engine": "abacus"}, "abacus"),
        ({"precision": "fp7"}, "fp7"),
        ({"threads": 10**6}, "threads"),
        ({"window_voxels": 5}, "max_window_voxels 5"),
    ],
)
def test_what_cannot_be_made_again_here_is_said_and_ends_nothing(tmp_path, checkpoint, series, change, said):
    number = iter(range(9))

    def strange(groups):
        if next(number) == 0:
            made_by = replace(BASE[0], **change)
            groups[1]["trace"] = trace_message(made_by, groups[0]["volume"])
        return groups

    segmenter = Segmenter(checkpoint, engine="torch", threads=1, min_agreement=0.0)
    BASE = [segmenter.segment(series[0]).made_by]
    record(tmp_path, checkpoint, [series[0]], change=strange)
    (row,) = replay(tmp_path, checkpoint)
    assert row.verdict == UNCHECKED and said in row.why


def test_an_update_whose_predecessor_has_no_result_in_the_bag_is_not_called_different(tmp_path, checkpoint, series):
    number = iter(range(9))
    record(tmp_path, checkpoint, series, change=lambda groups: groups[:1] if next(number) == 2 else groups)
    rows = list(replay(tmp_path, checkpoint))
    assert [row.verdict for row in rows] == [IDENTICAL, IDENTICAL, UNCHECKED, IDENTICAL]
    assert "made otherwise here" in rows[2].why


def test_after_a_pause_the_first_volume_is_seen_whole(checkpoint, series):
    segmenter = Segmenter(checkpoint, engine="torch", threads=1, min_agreement=0.0)
    incremental = IncrementalSegmenter(segmenter, POLICY)
    first = incremental.segment(series[0])
    incremental.warm_up()  # deactivated and activated
    assert incremental.segment(series[0]).made_by == first.made_by
    again = incremental.segment(series[0])
    assert (again.made_by.update, again.made_by.box, again.made_by.since_full) == ("unchanged", first.made_by.box, 1)


@pytest.mark.parametrize("topic", ["volume", "labels", "confidence", "trace"])
def test_a_message_that_is_damaged_in_the_bag_is_said_and_the_rest_is_compared(tmp_path, checkpoint, series, topic):
    record(tmp_path, checkpoint, [series[0], phantom((40, 30, 30), (8.0, 8.0, 8.0))[0]])
    (file,) = find_bags(tmp_path)
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(
            "UPDATE messages SET data = substr(data, 1, 30) WHERE id = (SELECT min(m.id) FROM messages m "
            "JOIN topics t ON t.id = m.topic_id WHERE t.name = ?)",
            (f"/{topic}",),
        )
    first, second = replay(tmp_path, checkpoint)
    assert first.verdict == UNCHECKED and first.why
    assert (second.made_by.update, second.verdict) == ("full", IDENTICAL)


def test_a_bag_without_a_message_is_passed_over_and_a_damaged_one_is_named(tmp_path, checkpoint, series):
    record(tmp_path, checkpoint, series[:1])
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "a.db3").touch()
    (row,) = replay(tmp_path, checkpoint)
    assert row.verdict == IDENTICAL
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "b.db3").write_bytes(b"SQLite? no" * 99)
    row, skipped = replay(tmp_path, checkpoint)
    assert row.verdict == IDENTICAL and "b.db3: cannot be read" in skipped.why
    assert recorded_volumes(tmp_path) == 1


def test_of_two_checkpoints_each_is_compared_by_its_own(tmp_path, checkpoint, series):
    other = replace(checkpoint, hash="0" * 16)
    for each in (checkpoint, other):
        record(tmp_path, each, series[:1])
    for each, another in ((checkpoint, other), (other, checkpoint)):
        row, skipped = replay(tmp_path, each)
        assert row.verdict == IDENTICAL
        assert f"made by checkpoint {another.hash}, not {each.hash}" in skipped.why


def test_a_volume_larger_than_allowed_is_not_checked(tmp_path, checkpoint, series):
    record(tmp_path, checkpoint, series[:1])
    (row,) = replay(tmp_path, checkpoint, max_voxels=1000)
    assert row.verdict == UNCHECKED and "the limit is 1000" in row.why


def test_another_checkpoint_is_refused(tmp_path, checkpoint, series):
    record(tmp_path, checkpoint, series[:1])
    with pytest.raises(ReplayError, match=f"made by checkpoint {checkpoint.hash}, not {'0' * 16}"):
        list(replay(tmp_path, replace(checkpoint, hash="0" * 16)))


def test_a_bag_of_others_is_refused(tmp_path, checkpoint):
    recorder = Recorder(tmp_path, {"x": ("/x", STRING)}, session="/chatter", limit_bytes=10**9, stopped=pytest.fail)
    recorder.close()
    with pytest.raises(BagError, match="no recording of a perception node"):
        list(replay(tmp_path, checkpoint))


def test_confidence_that_differs_is_found_too(tmp_path, checkpoint, series):
    def changed(groups):
        data = np.frombuffer(groups[1]["confidence"].data, np.uint8).copy()
        data[-100] ^= 1
        groups[1]["confidence"].data = data.tobytes()
        return groups

    record(tmp_path, checkpoint, series[:1], change=changed)
    (row,) = replay(tmp_path, checkpoint)
    assert (row.verdict, row.why) == ("different", "confidence of 1 voxels")
