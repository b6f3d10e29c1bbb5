"""A recording of every volume and every result, written by a thread of its own: no callback ever waits for the disk."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from rclpy.serialization import serialize_message
from std_msgs.msg import String

from threedme_ros.nodes.bag import UNUSABLE, BagWriter, typestore
from threedme_ros.nodes.parameters import ParameterError
from threedme_ros.nodes.watchdog import LeftBehind

SESSION = "recording"
"""The topic, below the node's name, of the first message: a String, JSON, which topic holds what."""

WAITING_BYTES = 256 << 20
WAITING_GROUPS = 256
RESERVE_BYTES = 256 << 20
"""Left free on the disk: the node's own files need some, too."""

MESSAGE_BYTES = 1_000_000_000
"""SQLite holds no more in one row."""

POINT_BYTES = 200
"""A Point of a marker, a Python object with three numbers."""

CLOSE_TIMEOUT_S = 25.0


class Recorder:
    """One bag in ``folder``, named by its time; safe from any thread.

    Everything handed over is written or counted as missed: what comes faster than the disk takes it, what is larger
    than `MESSAGE_BYTES`, and all that comes after the recording has stopped. It stops when this bag and what lay in
    ``folder`` before hold ``limit_bytes``, when the disk is full or fails; ``stopped(reason)`` hears of it once.

    topics: what `put` calls them -> (name in the bag, type). session: name of the first message's topic.
    Raises ModuleNotFoundError without rosbags, BagError for a type that is not installed.
    """

    def __init__(
        self,
        folder: Path,
        topics: Mapping[str, tuple[str, str]],
        *,
        session: str,
        limit_bytes: int,
        stopped: Callable[[str], None],
    ) -> None:
        self._topics = {key: name for key, (name, _) in topics.items()}
        self._types = {session: "std_msgs/msg/String", **dict(topics.values())}
        typestore(set(self._types.values()))  # what is missing is told here, not by the thread
        self._folder, self._session, self._limit, self._stopped = folder, session, limit_bytes, stopped
        self._ready = threading.Condition()
        self._waiting: deque[tuple[int, int, dict]] = deque()  # (time in ns, bytes, messages)
        self._waiting_bytes = 0
        self._closing = False
        self._began_ns = self._last_ns = time.time_ns()
        self.failure = ""
        """Why the recording has stopped; empty while it goes on."""
        self._bag: Path | None = None
        self._written = self._written_bytes = self._missed = 0
        self.thread = threading.Thread(target=self._run, name="recording", daemon=True)
        self.thread.start()

    def put(self, messages: Mapping[str, object]) -> None:
        """Messages that belong together, by what they are called; never waits. They must not change afterwards."""
        size = sum(_size(message) for message in messages.values())
        with self._ready:
            full = self._waiting and self._waiting_bytes + size > WAITING_BYTES
            if self.failure or self._closing or full or len(self._waiting) >= WAITING_GROUPS:
                self._missed += len(messages)
                return
            # in order whatever the clock does: a bag is read by time
            self._last_ns = max(self._last_ns + len(messages), time.time_ns())
            self._waiting.append((self._last_ns, size, dict(messages)))
            self._waiting_bytes += size
            self._ready.notify()

    def describe(self) -> dict[str, object]:
        """What diagnostics show."""
        with self._ready:
            state = f"stopped: {self.failure}" if self.failure else str(self._bag or self._folder)
            return {
                "recording": state,
                "recorded_messages": self._written,
                "recorded_mb": f"{self._written_bytes / 1e6:.1f}",
                "record_missed": self._missed,
            }

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Write what waits and end the bag. Given up after ``timeout_s``: what still waits then is missed, and what was
        written can be read."""
        with self._ready:
            self._closing = True
            self._ready.notify()
        self.thread.join(timeout_s)
        if self.thread.is_alive():
            self._fail(f"the disk did not take the rest within {timeout_s:.0f} s at the end")

    def _run(self) -> None:
        writer = None
        try:
            writer = self._open()
            while group := self._take():
                self._write(writer, group)
            writer.close()
        except Exception as error:  # whatever it is, the node goes on without its recording
            plain = isinstance(error, (OSError, FullError))
            self._fail(str(error) if plain else f"{type(error).__name__}: {error}")
            if writer:
                _end(writer)

    def _open(self) -> BagWriter:
        self._folder.mkdir(parents=True, exist_ok=True)
        before = sum(file.stat().st_size for file in self._folder.rglob("*") if file.is_file())
        self._limit -= before
        if self._limit <= 0:
            raise FullError(f"{self._folder} holds {before / 1e9:.1f} GB already: expected less than the limit")
        # two nodes in containers may share a second and a process number
        bag = self._folder / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}_{os.getpid()}_{secrets.token_hex(2)}"
        writer = BagWriter(bag, self._types)
        session = String(data=json.dumps({"topics": self._topics}))
        writer.write(self._session, self._began_ns, serialize_message(session))
        writer.commit()
        with self._ready:
            self._bag = bag
        return writer

    def _take(self) -> tuple[int, int, dict] | None:
        with self._ready:
            self._ready.wait_for(lambda: self._waiting or self._closing)
            if not self._waiting:
                return None
            group = self._waiting.popleft()
            self._waiting_bytes -= group[1]
            return group

    def _write(self, writer: BagWriter, group: tuple[int, int, dict]) -> None:
        time_ns, _, messages = group
        try:
            data = {key: serialize_message(message) for key, message in messages.items()}
            size = sum(len(block) for block in data.values())
            if max(len(block) for block in data.values()) > MESSAGE_BYTES:
                with self._ready:
                    self._missed += len(messages)
                return
            if self._written_bytes + size > self._limit:
                raise FullError(f"the limit of the recording is reached in {self._folder}")
            if shutil.disk_usage(self._folder).free < RESERVE_BYTES + size:
                raise FullError(f"less than {RESERVE_BYTES >> 20} MiB are free for {self._folder}")
            for number, (key, block) in enumerate(data.items()):
                writer.write(self._topics[key], time_ns - len(data) + 1 + number, block)
            writer.commit()
        except BaseException:
            with self._ready:
                self._missed += len(messages)
            raise
        with self._ready:
            self._written += len(messages)
            self._written_bytes += size

    def _fail(self, reason: str) -> None:
        with self._ready:
            if self.failure:  # given up before, at the end
                return
            self.failure = reason
            self._missed += sum(len(messages) for _, _, messages in self._waiting)
            self._waiting.clear()
            self._waiting_bytes = 0
        self._stopped(f"recording stopped: {reason}")


class FullError(RuntimeError):
    """No more may be written; the message says what bounds it."""


def _end(writer: BagWriter) -> None:
    try:
        writer.close()
    except (OSError, sqlite3.Error):
        writer.abandon()


def _size(message: object) -> int:
    """Bytes that a waiting message holds, about."""
    if markers := getattr(message, "markers", ()):
        return sum(len(marker.points) for marker in markers) * POINT_BYTES
    return len(getattr(message, "data", b""))


class Tape:
    """The recording of a node, if it is asked for one: what `Recorder` does, or nothing. A part of the perception node.

    Topics are called as the node calls them; in the bag they bear their full names, remapped as they are.
    """

    def __init__(self, node, kinds: Mapping[str, type], left_behind: LeftBehind) -> None:
        """kinds: message class of each topic. left_behind: gets the recorder's thread if the disk hangs at the end."""
        self._node, self._kinds, self._left_behind = node, dict(kinds), left_behind
        self._recorder: Recorder | None = None

    def start(self, folder: str, limit_gb: float, stopped: Callable[[str], None]) -> None:
        """A new bag in ``folder``; with an empty one nothing is recorded.

        Raises as `Recorder`, and ParameterError for a folder whose name no bag can have.
        """
        if not folder:
            return
        if odd := sorted(UNUSABLE & set(str(Path(folder).expanduser().absolute()))):
            raise ParameterError(f"record {folder!r}: expected a folder without {' '.join(odd)} in its path")
        self._recorder = Recorder(
            Path(folder).expanduser(),
            {topic: (self._node.resolve_topic_name(topic), type_name(kind)) for topic, kind in self._kinds.items()},
            session=f"{self._node.get_fully_qualified_name()}/{SESSION}",
            limit_bytes=int(limit_gb * 1e9),
            stopped=stopped,
        )

    def put(self, messages: Mapping[str, object]) -> None:
        if recorder := self._recorder:
            recorder.put(messages)

    def status(self, name: str) -> list[DiagnosticStatus]:
        """How the recording is, for `/diagnostics`; nothing where none was asked for."""
        recorder = self._recorder
        if not recorder:
            return []
        told = recorder.describe()
        level, message = DiagnosticStatus.OK, "recording"
        if recorder.failure:
            level, message = DiagnosticStatus.ERROR, f"recording stopped: {recorder.failure}"
        elif told["record_missed"]:
            level, message = DiagnosticStatus.WARN, f"{told['record_missed']} messages are not in the recording"
        values = [KeyValue(key=key, value=str(value)) for key, value in told.items()]
        return [DiagnosticStatus(level=level, name=name, message=message, hardware_id="threedme_ros", values=values)]

    def stop(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """End the recording, as `Recorder.close`."""
        recorder, self._recorder = self._recorder, None
        if recorder:
            recorder.close(timeout_s)
            if recorder.thread.is_alive():
                self._left_behind.add(recorder.thread)


def type_name(kind: type) -> str:
    """sensor_msgs.msg.CompressedImage -> "sensor_msgs/msg/CompressedImage"."""
    return f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"


def with_record_parameter(argv: Sequence[str]) -> list[str]:
    """``argv`` with a plain ``--record DIR`` as the ROS parameter it stands for.

    ParameterError if DIR is missing.
    """
    plain, folder = [], None
    arguments = iter(argv)
    for argument in arguments:
        if argument == "--record":
            folder = next(arguments, "")
        elif argument.startswith("--record="):
            folder = argument.partition("=")[2]
        else:
            plain.append(argument)
            continue
        if not folder or folder.startswith("-"):
            raise ParameterError(f"--record {folder!r}: expected a folder")
    if folder is None:
        return plain
    return [*plain, "--ros-args", "-p", f"record:={json.dumps(str(Path(folder).expanduser().resolve()))}"]
