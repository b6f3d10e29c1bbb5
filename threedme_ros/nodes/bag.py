"""rosbag2 files by the rosbags library: no `ros2 bag` is needed to write or to read them. Nothing here imports ROS."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

VERSION = 9
"""Of the metadata, as of Jazzy's and Kilted's `ros2 bag`."""

INSTALL = "pip install rosbags"

UNUSABLE = frozenset("#%?")
"""rosbags gives a path to SQLite as the address of a file, where these mean something else."""


class BagError(ValueError):
    """A folder is no bag of ours, or a bag cannot be read; the message names it."""


@dataclass(frozen=True)
class Entry:
    """A message as it was recorded: its topic, when (ns of the recorder's clock), and its CDR bytes."""

    topic: str
    time_ns: int
    data: bytes


class BagWriter:
    """A new bag in ``folder``, which must not exist. topics: name -> type, e.g. "sensor_msgs/msg/CompressedImage".

    What is committed survives the process, however that ends; until it does, nobody reads the bag. Raises
    ModuleNotFoundError without rosbags, OSError or sqlite3.Error where the disk refuses. Used from one thread.
    """

    def __init__(self, folder: Path, topics: Mapping[str, str]) -> None:
        Writer = _rosbags("rosbag2").Writer
        self._writer = Writer(folder, version=VERSION)
        self._writer.open()
        self._held = _hold(folder, fcntl.LOCK_EX)
        store = typestore(set(topics.values()))
        self._connections = {
            topic: self._writer.add_connection(topic, kind, typestore=store) for topic, kind in topics.items()
        }
        self.commit()

    def write(self, topic: str, time_ns: int, data: bytes) -> None:
        self._writer.write(self._connections[topic], time_ns, data)

    def commit(self) -> None:
        # the library itself would commit once, when the bag is closed
        self._writer.storage.conn.commit()

    def close(self) -> None:
        """Write the metadata that `ros2 bag` asks for."""
        self._writer.close()
        os.close(self._held)

    def abandon(self) -> None:
        """Give up on what is not committed; nothing is raised on."""
        with suppress(sqlite3.Error):
            self._writer.abort()
        os.close(self._held)


def typestore(kinds: set[str]):
    """rosbags' Typestore with ``kinds`` and all that they hold, from the definitions of the installed packages."""
    typesys = _rosbags("typesys")
    store = typesys.get_typestore(typesys.Stores.EMPTY)
    types, waiting = {}, set(kinds)
    while waiting:
        name = waiting.pop()
        found = typesys.get_types_from_msg(_definition(name), name)
        types |= found
        waiting |= {inner for _, fields in found.values() for inner in _inner(fields)} - set(types)
    store.register(types)
    return store


def standard_types():
    """rosbags' own Typestore of the messages that ROS 2 ships: to read a bag where no ROS is installed."""
    typesys = _rosbags("typesys")
    return typesys.get_typestore(typesys.Stores.ROS2_KILTED)


def decoded(store, entry: Entry, kind: str):
    """The message of type ``kind``; BagError if its bytes are none."""
    try:
        return store.deserialize_cdr(entry.data, kind)
    except Exception as error:  # of the library, or whatever damaged bytes lead its decoder to
        raise BagError(f"{entry.topic[:200]}: no {kind}: {_one_line(error)}") from error


def _inner(fields) -> Iterator[str]:
    """Names of the types in rosbags' field descriptions, (field, (node, value)) each."""
    for _, (node, value) in fields:
        while node.name in ("ARRAY", "SEQUENCE"):  # (inner, length)
            node, value = value[0]
        if node.name == "NAME":
            yield value


def _definition(name: str) -> str:
    package, _, kind = name.split("/")
    spec = importlib.util.find_spec(package)
    for parent in Path(spec.origin).parents if spec else ():
        path = parent / "share" / package / "msg" / f"{kind}.msg"
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise BagError(f"{name}: no definition under share/ of an installed package {package!r}")


def find_bags(folder: Path) -> list[Path]:
    """The SQLite file of every bag in ``folder``, or of the bag that it is, oldest first. BagError if there is none."""
    found = sorted([*folder.glob("*.db3"), *folder.glob("*/*.db3")])
    if not found:
        raise BagError(f"{folder}: no recording (a .db3 file) in it")
    return found


def holds_nothing(file: Path) -> bool:
    """The recorder of this bag ended before its first message was on the disk."""
    try:
        os.close(_hold(file.parent, fcntl.LOCK_SH | fcntl.LOCK_NB))
        with closing(sqlite3.connect(file)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            return "messages" not in tables or not connection.execute("SELECT count(*) FROM messages").fetchone()[0]
    except Exception:  # of a damaged file sqlite3 cannot even decode the names: `read_bag` says what is wrong
        return False


def read_bag(file: Path, topics: set[str] | None = None) -> Iterator[Entry]:
    """What was recorded, in order; with ``topics`` only those. A bag whose recorder was killed is read up to its end.

    BagError if it cannot be read, or is still being recorded.
    """
    Reader = _rosbags("rosbag2").Reader
    if odd := sorted(UNUSABLE & set(str(file.absolute()))):
        raise BagError(f"{file}: expected a path without {' '.join(odd)}")
    try:
        os.close(_hold(file.parent, fcntl.LOCK_SH | fcntl.LOCK_NB))
        with closing(sqlite3.connect(file)) as connection:
            _check_schema(connection)  # it also rolls back what a killed recorder left half written
        with Reader(file) as reader:
            wanted = [c for c in reader.connections if topics is None or c.topic in topics]
            for connection, time_ns, data in reader.messages(connections=wanted):
                yield Entry(connection.topic, time_ns, data)
    except BlockingIOError as error:
        raise BagError(f"{file}: still being recorded: expected a recording that has ended") from error
    except Exception as error:  # the library lets errors through of SQLite, of its binding and of its own
        raise BagError(f"{file}: cannot be read: {_one_line(error)}") from error


def _check_schema(connection: sqlite3.Connection) -> None:
    """BagError for a file that computes rows when it is read: a bag holds them."""
    for kind, name, text in connection.execute("SELECT type, name, sql FROM sqlite_master"):
        hidden = kind == "table" and any(
            row[-1] for row in connection.execute("SELECT * FROM pragma_table_xinfo(?)", (name,))
        )
        if kind not in ("table", "index") or hidden or str(text).upper().startswith("CREATE VIRTUAL"):
            raise BagError(f"{kind} {name!r}: expected plain tables and indices")


def _hold(folder: Path, how: int) -> int:
    """A descriptor that holds ``folder`` until it is closed, or its process ends. how: as for flock(2).

    BlockingIOError if another process holds it. Where the file system has no locks, nothing is held.
    """
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(held, how)
    except BlockingIOError:
        os.close(held)
        raise
    except OSError:
        pass
    return held


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _rosbags(part: str):
    try:
        return importlib.import_module(f"rosbags.{part}")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"recordings need the package rosbags: {INSTALL}") from error
