"""A recording played again: every recorded volume through what made its result, labels compared bit for bit."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from threedme_ros.documents import parse_mapping
from threedme_ros.inference.engines import EngineError
from threedme_ros.inference.incremental import UPDATES, IncrementalSegmenter, UpdatePolicy
from threedme_ros.inference.made_by import MadeBy, MadeByError
from threedme_ros.inference.segmenter import Segmentation, Segmenter
from threedme_ros.model.checkpoint import Checkpoint
from threedme_ros.nodes.bag import BagError, Entry, decoded, find_bags, holds_nothing, read_bag, standard_types
from threedme_ros.volume import Volume
from threedme_ros.volume_io import DEFAULT_MAX_VOXELS, volume_from_bytes

IDENTICAL, DIFFERENT, UNCHECKED = "identical", "different", "not checked"
CHECKED_TOPICS = ("volume", "trace", "labels", "confidence")
FULL = UPDATES[0]
MAX_THREADS = 1024
POLICY = UpdatePolicy(full_every=0)
"""The node's; when a full pass is due, the recording says."""


class ReplayError(ValueError):
    """A recording cannot be played with this checkpoint; the message says which one it needs."""


@dataclass(frozen=True)
class Row:
    """One recorded result. stamp: sec.nanosec of its volume. verdict: `IDENTICAL`, `DIFFERENT` or `UNCHECKED`, and why.
    seconds: it took to make again."""

    stamp: str
    made_by: MadeBy
    verdict: str
    why: str = ""
    shape: tuple[int, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Skipped:
    """A bag, or the rest of one, that could not be played, and why."""

    why: str


def replay(folder: Path, checkpoint: Checkpoint, max_voxels: int = DEFAULT_MAX_VOXELS) -> Iterator[Row | Skipped]:
    """Every result in the bags of ``folder``, in order, as soon as it is compared; then the bags that were skipped.

    max_voxels: as the node was told. Raises BagError or ReplayError where nothing at all could be compared: no
    recording of ours, damaged, or made by another checkpoint.
    """
    compared, refused = False, []
    for file in find_bags(folder):
        if holds_nothing(file):
            continue
        try:
            for row in _replay_bag(file, checkpoint, max_voxels):
                compared = True
                yield row
        except (BagError, ReplayError) as error:
            refused.append(error)
    if refused and not compared:
        raise refused[0]
    for error in refused:
        yield Skipped(str(error))


def recorded_volumes(folder: Path) -> int:
    """Volumes that came in, those without a result too, as far as the bags can be read."""
    count = 0
    for file in find_bags(folder):
        with suppress(BagError):
            for _ in read_bag(file, {_topics(file)["volume"]}):
                count += 1
    return count


def _replay_bag(file: Path, checkpoint: Checkpoint, max_voxels: int) -> Iterator[Row]:
    names = _topics(file)
    store = standard_types()
    wanted = Counter(_trace(store, entry).get("volume_sha256") for entry in read_bag(file, {names["trace"]}))
    remaker = _Remaker(checkpoint, max_voxels)
    inputs: dict[str, object] = {}  # messages by the SHA-256 of their data, until their last result
    called = {name: topic for topic, name in names.items()}
    trace, labels = {}, None
    try:
        for entry in read_bag(file, set(called)):
            topic = called[entry.topic]
            if topic == "trace":
                trace, labels = _trace(store, entry), None
                continue
            message = _image(store, entry)
            if topic == "volume":
                digest = hashlib.sha256(message.data).hexdigest() if message else ""
                if wanted[digest]:
                    inputs[digest] = message
            elif topic == "labels":
                labels = message
            else:  # the confidence: the last of a result that we look at
                digest = trace.get("volume_sha256")
                yield remaker.row(trace, inputs.get(digest), labels, message)
                wanted[digest] -= 1
                if not wanted[digest]:
                    inputs.pop(digest, None)
    finally:
        remaker.close()


def _topics(file: Path) -> dict[str, str]:
    """What the node calls its topics -> their names in the bag; from the first message."""
    first = next(iter(read_bag(file)), None)
    try:
        names = parse_mapping(_text(standard_types(), first))["topics"]
        return {topic: str(names[topic]) for topic in CHECKED_TOPICS}
    except (AttributeError, ValueError, KeyError, TypeError) as error:
        raise BagError(f"{file}: no recording of a perception node: its first message does not tell topics") from error


def _text(store, entry: Entry) -> str:
    return decoded(store, entry, "std_msgs/msg/String").data


def _trace(store, entry: Entry) -> dict:
    """Empty if it cannot be read; then `_Remaker.row` says so."""
    try:
        trace = parse_mapping(_text(store, entry))
    except ValueError:
        return {}
    return trace if isinstance(trace.get("volume_sha256"), str) else {}


def _image(store, entry: Entry):
    """The CompressedImage; None if it cannot be read."""
    try:
        return decoded(store, entry, "sensor_msgs/msg/CompressedImage")
    except BagError:
        return None


class _Remaker:
    """Makes results again, with one segmenter at a time."""

    def __init__(self, checkpoint: Checkpoint, max_voxels: int) -> None:
        self._checkpoint, self._max_voxels = checkpoint, max_voxels
        self._key: tuple = ()
        self._segmenter: Segmenter | None = None
        self._updates: IncrementalSegmenter | None = None

    def row(self, trace: dict, message, labels, confidence) -> Row:
        """The result that ``trace`` tells of, from the recorded input, against what was published; each None if it is
        not there, or cannot be read."""
        stamp = _stamp(labels or confidence or message)
        try:
            made_by = MadeBy.from_json(json.dumps(trace))
        except MadeByError as error:
            return Row(stamp, MadeBy(), UNCHECKED, str(error))
        if made_by.checkpoint != self._checkpoint.hash:
            raise ReplayError(
                f"the recording was made by checkpoint {made_by.checkpoint}, not {self._checkpoint.hash}: give its file"
            )
        if message is None:
            self._forget()
            return Row(stamp, made_by, UNCHECKED, "its volume is not in the recording, or not as it was")
        if labels is None or confidence is None:
            self._forget()
            return Row(stamp, made_by, UNCHECKED, "its labels or its confidence cannot be read")
        began = perf_counter()
        try:
            volume, *told = [
                volume_from_bytes(m.data, m.format, frame_id=m.header.frame_id, max_voxels=self._max_voxels)
                for m in (message, labels, confidence)
            ]
            made = self._make(volume, made_by)
        except (ValueError, EngineError) as error:
            self._forget()
            return Row(stamp, made_by, UNCHECKED, str(error))
        seconds = perf_counter() - began
        if made.made_by != made_by:
            return Row(
                stamp, made_by, UNCHECKED, f"made otherwise here: {made.made_by.to_json()}", volume.shape, seconds
            )
        why = _differences(made, *told)
        return Row(stamp, made_by, DIFFERENT if why else IDENTICAL, why, volume.shape, seconds)

    def close(self) -> None:
        if self._segmenter:
            self._segmenter.close()
        self._segmenter = self._updates = None

    def _make(self, volume: Volume, made_by: MadeBy) -> Segmentation:
        if made_by.device != "cpu":
            raise EngineError(f"made by {made_by.engine} on {made_by.device}: only results of a CPU are made again")
        key = (made_by.engine, made_by.precision, made_by.threads, made_by.modalities)
        if key != self._key or self._segmenter is None:
            self.close()
            if not 0 <= made_by.threads <= MAX_THREADS:
                raise EngineError(f"{made_by.threads} threads: expected at most {MAX_THREADS}")
            self._segmenter = Segmenter(
                self._checkpoint,
                engine=made_by.engine,
                device="cpu",
                precision=made_by.precision,
                threads=made_by.threads,
                modality=made_by.modalities,
                min_agreement=0.0,
            )
            self._updates = IncrementalSegmenter(self._segmenter, POLICY)
            self._key = key
        self._segmenter.follow(made_by)
        if made_by.update == FULL:
            self._updates.forget()
        return self._updates.segment(volume)

    def _forget(self) -> None:
        if self._updates:
            self._updates.forget()


def _stamp(message) -> str:
    return f"{message.header.stamp.sec}.{message.header.stamp.nanosec:09d}" if message else "unknown"


def _differences(made: Segmentation, labels: Volume, confidence: Volume) -> str:
    """What is not bit for bit the same; empty if everything is."""
    found = []
    for name, ours, theirs in (("labels", made.labels, labels), ("confidence", made.confidence, confidence)):
        if ours.shape != theirs.shape or ours.voxels.dtype != theirs.voxels.dtype:
            found.append(f"{name} of {theirs.shape}, here {ours.shape}")
        elif count := int(np.count_nonzero(ours.voxels != theirs.voxels)):
            found.append(f"{name} of {count} voxels")
        elif not np.array_equal(np.float32(ours.affine), np.float32(theirs.affine)):
            found.append(f"the place of the {name}")
    return "; ".join(found)
