"""A recording that is played again: an SQLite file of CDR messages."""

from __future__ import annotations

import json
import random
import sqlite3
import tempfile
from contextlib import closing, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

import ruamel.yaml

from threedme_ros.nodes.bag import BagError, BagWriter, decoded, find_bags, holds_nothing, read_bag, standard_types
from threedme_ros.nodes.replay import CHECKED_TOPICS

from .decoder import Decoder, from_file, scratch
from .mutation import mutate_bytes, number_bytes

STRING, IMAGE = "std_msgs/msg/String", "sensor_msgs/msg/CompressedImage"
SESSION, VOLUME = "/perception/recording", "/volume"
KINDS = {SESSION: STRING, VOLUME: IMAGE}
STATEMENTS = (
    "UPDATE messages SET data = :text",
    "UPDATE messages SET data = substr(data, 1, :number)",
    "UPDATE messages SET data = zeroblob(:number)",
    "UPDATE messages SET timestamp = :number",
    "UPDATE messages SET timestamp = :text",
    "UPDATE messages SET topic_id = :number",
    "UPDATE topics SET name = :text",
    "UPDATE topics SET type = :text",
    "UPDATE topics SET serialization_format = :text",
    "UPDATE topics SET offered_qos_profiles = :text",
    "UPDATE topics SET id = id + :number",
    "UPDATE schema SET schema_version = :number",
    "UPDATE metadata SET metadata = :text",
    "UPDATE message_definitions SET encoded_message_definition = :text",
    "DELETE FROM topics",
    "DELETE FROM messages",
    "DELETE FROM message_definitions",
    "DROP TABLE topics",
    "DROP TABLE messages",
    "CREATE VIEW more AS SELECT * FROM messages",
    "CREATE TRIGGER more AFTER INSERT ON messages BEGIN DELETE FROM topics; END",
    "ALTER TABLE messages ADD COLUMN more BLOB GENERATED ALWAYS AS (zeroblob(900000000)) VIRTUAL",
    "ALTER TABLE topics RENAME COLUMN name TO names",
    "PRAGMA journal_mode = WAL",
    "PRAGMA user_version = 7",
)
TEXTS = ("", "x", "a/b/c", "std_msgs/msg/Header", IMAGE, "é" * 300, "- history: [", "\0", "{" * 2000)


@cache
def store():
    """Its code for the two types is made of rosbags' own definitions, once, before any stranger's bytes are there."""
    made = standard_types()
    for kind in (STRING, IMAGE):
        made.get_msgdef(kind)
    return made


def read(path: Path) -> list[tuple[str, object]]:
    assert not holds_nothing(path) or not list(read_bag(path))
    return [(entry.topic, decoded(store(), entry, KINDS.get(entry.topic, STRING))) for entry in read_bag(path)]


def check(messages: list[tuple[str, object]]) -> None:
    assert all(isinstance(topic, str) for topic, _ in messages)


@cache
def seeds() -> list[bytes]:
    """One bag of two messages, as a node writes it, but in small pages."""
    topics = {topic: topic for topic in CHECKED_TOPICS}
    with tempfile.TemporaryDirectory(dir=scratch()) as folder:
        writer = BagWriter(Path(folder) / "made", KINDS)
        writer.write(SESSION, 1, cdr(json.dumps({"topics": topics})))
        writer.write(VOLUME, 2, b"\0\1\0\0" + bytes(8) + cdr("patient")[4:] + cdr("nifti")[4:] + cdr("\1\2\3")[4:])
        writer.commit()
        writer.close()
        file = find_bags(Path(folder) / "made")[0]
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("PRAGMA page_size = 512")
            connection.execute("VACUUM")
        return [file.read_bytes()]


def changed(bag: bytes, *statements: str) -> bytes:
    """``bag`` after another program worked on it."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(bag)
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        return connection.serialize()


def cdr(text: str) -> bytes:
    """A String message; its end padded, so that another field may follow."""
    data = text.encode() + b"\0"
    return b"\0\1\0\0" + len(data).to_bytes(4, "little") + data + bytes(-len(data) % 4)


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Bits of the file; or statements that another program could have run in it; or bytes of a message."""
    if rng.random() < 0.3:
        return mutate_bytes(data, rng)
    with suppress(sqlite3.Error, UnicodeDecodeError), closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(data)
        for _ in range(rng.choice((1, 1, 2))):
            if rng.random() < 0.4:
                for number, message in connection.execute("SELECT id, CAST(data AS BLOB) FROM messages").fetchall():
                    damaged = mutate_bytes(message or b"", rng)
                    connection.execute("UPDATE messages SET data = ? WHERE id = ?", (damaged, number))
            else:
                number = int.from_bytes(number_bytes(rng, "<i"), "little", signed=True)
                connection.execute(rng.choice(STATEMENTS), {"text": rng.choice(TEXTS), "number": number})
        connection.commit()
        return connection.serialize()
    return mutate_bytes(data, rng)  # it was damaged too far for SQLite


def decoders() -> tuple[Decoder, ...]:
    folder = scratch() / "bag"
    store()
    options = {"refusals": (BagError,), "check": check, "mutate": mutate, "seeds": seeds}
    made = from_file("bag", ".db3", read, str(folder), called="bag/bag.db3", **options)
    library = Path(ruamel.yaml.__file__).parent  # of YAML, which rosbags reads with: it looks for plugins of its own
    return (replace(made, allowed=made.allowed | {str(library), str(library / "*/__plug_in__.py")}),)
