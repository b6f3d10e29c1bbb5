"""The recorder alone, on real files; over DDS: test/ros/test_recording.py."""

import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from array import array
from collections import Counter
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("rosbags")
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Point
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header, String
from visualization_msgs.msg import Marker, MarkerArray

from threedme_ros.nodes import recording
from threedme_ros.nodes.bag import BagError, find_bags, holds_nothing, read_bag, typestore
from threedme_ros.nodes.parameters import ParameterError
from threedme_ros.nodes.recording import Recorder, Tape, type_name, with_record_parameter
from threedme_ros.nodes.watchdog import LeftBehind

IMAGE, MARKERS = "sensor_msgs/msg/CompressedImage", "visualization_msgs/msg/MarkerArray"
TOPICS = {"volume": ("/scanner/volume", IMAGE), "markers": ("/markers", MARKERS)}


def recorder(folder, **changes) -> tuple[Recorder, list[str]]:
    said: list[str] = []
    options = {"session": "/perception/recording", "limit_bytes": 10**9, "stopped": said.append, **changes}
    return Recorder(folder, TOPICS, **options), said


def image(data: bytes) -> CompressedImage:
    message = CompressedImage(header=Header(frame_id="patient"), format="nifti")
    message.header.stamp.sec = 7
    message.data = array("B", data)
    return message


def wait(condition) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_another_reader_finds_every_message_under_its_full_name_byte_for_byte(tmp_path):
    made, said = recorder(tmp_path)
    blocks = [os.urandom(1000 + n) for n in range(5)]
    for block in blocks:
        made.put({"volume": image(block)})
    marker = Marker(header=Header(frame_id="patient"), ns="liver", points=[Point(x=1.0, y=2.0, z=3.0)])
    made.put({"markers": MarkerArray(markers=[marker])})
    made.close()
    assert said == [] and made.describe()["record_missed"] == 0
    assert made.describe()["recorded_messages"] == 6
    (bag,) = tmp_path.iterdir()
    store = get_typestore(Stores.ROS2_KILTED)
    with Reader(bag) as reader:
        found = [(c.topic, store.deserialize_cdr(data, c.msgtype), t) for c, t, data in reader.messages()]
    assert [topic for topic, _, _ in found] == ["/perception/recording", *["/scanner/volume"] * 5, "/markers"]
    assert [bytes(m.data) for topic, m, _ in found if topic == "/scanner/volume"] == blocks
    assert found[1][1].header.stamp.sec == 7 and found[1][1].format == "nifti"
    assert found[-1][1].markers[0].ns == "liver" and found[-1][1].markers[0].points[0].z == 3.0
    assert json.loads(found[0][1].data)["topics"] == {"volume": "/scanner/volume", "markers": "/markers"}
    times = [t for _, _, t in found]
    assert times == sorted(set(times))


def test_definitions_are_those_of_the_installed_packages():
    described = json.loads(next(Path(sys.prefix).glob("share/sensor_msgs/msg/CompressedImage.json")).read_text())
    hashes = {row["type_name"]: row["hash_string"] for row in described["type_hashes"]}
    store = typestore({IMAGE})
    assert {name: store.hash_rihs01(name) for name in hashes} == hashes


def test_a_type_that_is_not_installed_is_named():
    with pytest.raises(BagError, match=r"nowhere_msgs/msg/Thing: no definition"):
        typestore({"nowhere_msgs/msg/Thing"})


def test_putting_never_waits_and_what_the_disk_does_not_take_is_counted(tmp_path, monkeypatch):
    gate = threading.Event()
    write = recording.BagWriter.write

    def slow(self, *args):
        gate.wait(30)
        write(self, *args)

    monkeypatch.setattr(recording, "WAITING_BYTES", 25_000)
    made, _ = recorder(tmp_path)
    wait(lambda: made.describe()["recording"] != str(tmp_path))  # the bag is open
    monkeypatch.setattr(recording.BagWriter, "write", slow)
    began = time.monotonic()
    for n in range(20):
        made.put({"volume": image(bytes([n]) * 10_000)})
    assert time.monotonic() - began < 5
    gate.set()
    made.close()
    told = made.describe()
    assert told["recorded_messages"] + told["record_missed"] == 20
    assert 2 <= told["recorded_messages"] <= 4
    in_bag = [e for e in read_bag(find_bags(tmp_path)[0]) if e.topic == "/scanner/volume"]
    assert len(in_bag) == told["recorded_messages"]


def test_at_its_limit_the_recording_ends_says_so_once_and_counts_the_rest(tmp_path):
    made, said = recorder(tmp_path, limit_bytes=50_000)
    for _ in range(10):
        made.put({"volume": image(bytes(10_000))})
    wait(lambda: made.failure)
    made.put({"volume": image(b"late")})
    made.close()
    assert len(said) == 1 and "limit of the recording is reached" in said[0]
    told = made.describe()
    assert told["recorded_messages"] == 4
    assert told["record_missed"] == 7
    assert told["recording"].startswith("stopped: ")
    assert sum(file.stat().st_size for file in tmp_path.rglob("*.db3")) < 150_000
    (bag,) = tmp_path.iterdir()
    with Reader(bag) as reader:  # it ended well: the metadata is there
        assert Counter(c.topic for c, _, _ in reader.messages()) == {"/perception/recording": 1, "/scanner/volume": 4}


def test_what_lies_in_the_folder_already_counts_towards_the_limit(tmp_path):
    (tmp_path / "older.db3").write_bytes(bytes(60_000))
    made, said = recorder(tmp_path, limit_bytes=50_000)
    made.put({"volume": image(b"x")})
    made.close()
    assert "holds 0.0 GB already" in said[0]
    assert made.describe()["record_missed"] == 1


def test_a_disk_with_no_room_left_ends_the_recording_before_it_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr(recording.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    made, said = recorder(tmp_path)
    made.put({"volume": image(b"x")})
    made.close()
    assert "MiB are free" in said[0]
    assert made.describe()["record_missed"] == 1


FULL_DISK = """
import resource, signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_recording import image, recorder
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
made, said = recorder(Path(sys.argv[1]))
for n in range(40):
    made.put({"volume": image(bytes([n]) * 20_000)})
end = time.monotonic() + 30
while not made.failure and time.monotonic() < end:
    time.sleep(0.01)
made.put({"volume": image(b"late")})
made.close()
told = made.describe()
assert len(said) == 1, said
assert told["recorded_messages"] + told["record_missed"] == 41, told
print(told["recorded_messages"], said[0])
"""


def test_a_disk_that_takes_no_more_ends_the_recording_and_what_was_committed_can_be_read(tmp_path):
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    written, said = done.stdout.strip().split(" ", 1)
    assert said.startswith("recording stopped: ") and 5 < int(written) < 20
    entries = [e for e in read_bag(find_bags(tmp_path)[0]) if e.topic == "/scanner/volume"]
    assert len(entries) == int(written)


KILLED = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_recording import image, recorder
made, said = recorder(Path(sys.argv[1]))
for n in range(3):
    made.put({"volume": image(bytes([n]) * 20_000)})
while made.describe()["recorded_messages"] < 3:
    time.sleep(0.01)
made.put({"volume": image(bytes(200_000_000))})
time.sleep(0.05)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_committed_survives_kill_9(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(Path(__file__).parent)]
    assert subprocess.run(command, timeout=120).returncode == -9
    entries = [e for e in read_bag(find_bags(tmp_path)[0]) if e.topic == "/scanner/volume"]
    assert [e.data[-1] for e in entries][:3] == [0, 1, 2]


def test_two_recordings_in_one_folder_are_two_bags(tmp_path):
    for _ in range(2):
        made, _ = recorder(tmp_path)
        made.put({"volume": image(b"x")})
        made.close()
    assert len(find_bags(tmp_path)) == 2


def test_a_clock_that_jumps_back_does_not_change_the_order(tmp_path, monkeypatch):
    clock = iter([3_000, 1_000, 2_000, 10])
    made, _ = recorder(tmp_path)
    wait(lambda: made.describe()["recording"] != str(tmp_path))
    monkeypatch.setattr(recording.time, "time_ns", lambda: 10**18 + next(clock))
    for n in range(4):
        made.put({"volume": image(bytes([n]))})
    monkeypatch.undo()
    made.close()
    entries = list(read_bag(find_bags(tmp_path)[0], {"/scanner/volume"}))
    assert [e.data[-1] for e in entries] == [0, 1, 2, 3]


@pytest.mark.parametrize("make", [lambda p: None, lambda p: (p / "x.db3").write_bytes(b"SQLite? no" * 99)])
def test_a_folder_that_is_no_recording_is_refused(tmp_path, make):
    make(tmp_path)
    with pytest.raises(BagError, match=str(tmp_path)):
        list(read_bag(find_bags(tmp_path)[0]))


def test_a_bag_is_not_read_while_it_grows(tmp_path):
    made, said = recorder(tmp_path)
    made.put({"volume": image(b"x")})
    wait(lambda: made.describe()["recorded_messages"])
    (file,) = find_bags(tmp_path)
    with pytest.raises(BagError, match="still being recorded"):
        list(read_bag(file))
    assert not holds_nothing(file)
    made.put({"volume": image(b"y")})
    made.close()
    assert said == [] and len(list(read_bag(file))) == 3


def test_a_message_that_no_bag_holds_is_missed_and_the_recording_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(recording, "MESSAGE_BYTES", 1000)
    made, said = recorder(tmp_path)
    for size in (10, 2000, 20):
        made.put({"volume": image(bytes(size))})
    made.close()
    told = made.describe()
    assert said == [] and (told["recorded_messages"], told["record_missed"]) == (2, 1)


def test_a_disk_that_takes_nothing_at_the_end_is_given_up(tmp_path, monkeypatch):
    gate = threading.Event()
    made, said = recorder(tmp_path)
    wait(lambda: made.describe()["recording"] != str(tmp_path))  # the bag is open
    monkeypatch.setattr(recording.BagWriter, "write", lambda *_: gate.wait(30))
    for _ in range(5):
        made.put({"volume": image(b"x")})
    wait(lambda: len(made._waiting) == 4)  # one is in hand
    made.close(0.2)
    assert len(said) == 1 and "the disk did not take the rest within 0 s" in said[0]
    assert made.describe()["record_missed"] == 4 and made.thread.is_alive()
    gate.set()
    made.thread.join(30)
    assert len(said) == 1 and made.describe()["recorded_messages"] == 1


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE messages RENAME TO others; CREATE VIEW messages AS SELECT * FROM others",
        "ALTER TABLE messages ADD COLUMN big BLOB GENERATED ALWAYS AS (zeroblob(900000000)) VIRTUAL",
        "CREATE TRIGGER t AFTER INSERT ON messages BEGIN DELETE FROM topics; END",
        "CREATE VIRTUAL TABLE x USING fts5(a)",
    ],
)
def test_a_bag_that_computes_is_refused(tmp_path, change):
    made, _ = recorder(tmp_path)
    made.close()
    (file,) = find_bags(tmp_path)
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(change)
    with pytest.raises(BagError, match="expected plain tables"):
        list(read_bag(file))


@pytest.mark.parametrize("name", ["OR#1", "a?b", "50%"])
def test_a_folder_that_sqlite_would_misread_is_refused(tmp_path, name):
    tape = Tape(SimpleNamespace(), {}, LeftBehind())
    with pytest.raises(ParameterError, match=f"{name}.*expected a folder without"):
        tape.start(str(tmp_path / name), 1.0, print)
    (tmp_path / name).mkdir()
    with pytest.raises(BagError, match="expected a path without"):
        list(read_bag(tmp_path / name / "x.db3"))


def tape(folder, limit_gb: float) -> Tape:
    node = SimpleNamespace(resolve_topic_name=lambda topic: f"/{topic}", get_fully_qualified_name=lambda: "/perception")
    made = Tape(node, {"volume": CompressedImage}, LeftBehind())
    made.start(str(folder), limit_gb, lambda reason: None)
    return made


def test_a_tape_without_a_folder_does_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    idle = tape("", 1.0)
    idle.put({"volume": image(b"x")})
    assert idle.status("recording") == []
    idle.stop()
    assert list(tmp_path.iterdir()) == []


def test_a_tape_says_how_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(recording, "MESSAGE_BYTES", 1000)
    good = tape(tmp_path, 1.0)
    good.put({"volume": image(b"x")})
    (status,) = good.status("/perception: recording")
    assert (status.name, status.level, status.message) == ("/perception: recording", DiagnosticStatus.OK, "recording")
    good.put({"volume": image(bytes(2000))})
    wait(lambda: good.status("x")[0].level == DiagnosticStatus.WARN)
    assert good.status("x")[0].message == "1 messages are not in the recording"
    good.stop()
    full = tape(tmp_path, 1e-6)
    wait(lambda: full.status("x")[0].level == DiagnosticStatus.ERROR)
    assert full.status("x")[0].message.startswith("recording stopped: ")
    full.stop()


def test_types_have_the_names_of_ros():
    assert [type_name(kind) for kind in (CompressedImage, String)] == [IMAGE, "std_msgs/msg/String"]


def test_a_plain_argument_becomes_the_parameter(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ours = ["--ros-args", "-p", f'record:="{tmp_path}/bags"']
    assert with_record_parameter(["node", "--record", "bags", "--ros-args", "-r", "a:=b"]) == [
        *["node", "--ros-args", "-r", "a:=b"],
        *ours,
    ]
    assert with_record_parameter(["node", f"--record={tmp_path}/bags"]) == ["node", *ours]
    assert with_record_parameter(["node", "x"]) == ["node", "x"]


@pytest.mark.parametrize("argv", [["node", "--record"], ["node", "--record="], ["node", "--record", "--ros-args"]])
def test_a_record_argument_without_a_folder_is_refused(argv):
    with pytest.raises(ParameterError, match="expected a folder"):
        with_record_parameter(argv)
