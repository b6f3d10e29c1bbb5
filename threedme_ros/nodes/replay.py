"""A recording played again: every recorded volume through what made its result, labels compared bit for bit."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from threedme_ros.inference.engines import EngineError
from threedme_ros.inference.incremental import UPDATES, IncrementalSegmenter, UpdatePolicy
from threedme_ros.inference.made_by import MadeBy, MadeByError
from threedme_ros.inference.segmenter import Segmentation, Segmenter
from threedme_ros.model.checkpoint import Checkpoint
from threedme_ros.nodes.bag import BagError, Entry, find_bags, read_bag, standard_types
from threedme_ros.volume import Volume
from threedme_ros.volume_io import volume_from_bytes

IDENTICAL, DIFFERENT, UNCHECKED = "identical", "different", "not checked"
CHECKED_TOPICS = ("volume", "trace", "labels", "confidence")
FULL = UPDATES[0]
MAX_THREADS = 1024
POLICY = UpdatePolicy(full_every=0)
"""The node's; when a full pass is due, the recording says."""


class ReplayError(ValueError):
    """The recording cannot be played with this checkpoint; the message says which one it needs."""


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


def replay(folder: Path, checkpoint: Checkpoint) -> Iterator[Row]:
    """Every result in the bags of ``folder``, in order, as soon as it is compared.

    Raises BagError for what is no recording of ours, ReplayError if another checkpoint made it.
    """
    for file in find_bags(folder):
        yield from _replay_bag(file, checkpoint)


def recorded_volumes(folder: Path) -> int:
    """Volumes that came in, those without a result too."""
    return sum(1 for file in find_bags(folder) for _ in read_bag(file, {_topics(file)["volume"]}))


def _replay_bag(file: Path, checkpoint: Checkpoint) -> Iterator[Row]:
    names = _topics(file)
    store = standard_types()
    traces = [json.loads(_text(store, entry)) for entry in read_bag(file, {names["trace"]})]
    wanted = Counter(trace.get("volume_sha256") for trace in traces)
    remaker = _Remaker(checkpoint)
    inputs: dict[str, object] = {}  # messages by the SHA-256 of their data, until their last result
    called = {name: topic for topic, name in names.items() if topic in CHECKED_TOPICS}
    trace, labels = {}, None
    try:
        for entry in read_bag(file, set(called)):
            topic = called[entry.topic]
            if topic == "trace":
                trace, labels = json.loads(_text(store, entry)), None
                continue
            message = store.deserialize_cdr(entry.data, "sensor_msgs/msg/CompressedImage")
            if topic == "volume":
                digest = hashlib.sha256(message.data).hexdigest()
                if wanted[digest]:
                    inputs[digest] = message
            elif topic == "labels":
                labels = message
            elif labels is not None:  # the confidence: the last of a result that we look at
                yield remaker.row(trace, inputs.get(trace.get("volume_sha256")), labels, message)
                digest = trace.get("volume_sha256")
                wanted[digest] -= 1
                if not wanted[digest]:
                    inputs.pop(digest, None)
    finally:
        remaker.close()


def _topics(file: Path) -> dict[str, str]:
    """What the node calls its topics -> their names in the bag; from the first message."""
    first = next(iter(read_bag(file)), None)
    try:
        names = json.loads(_text(standard_types(), first))["topics"]
        return {topic: str(names[topic]) for topic in CHECKED_TOPICS}
    except (AttributeError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BagError(f"{file}: no recording of a perception node: its first message does not tell topics") from error


def _text(store, entry: Entry) -> str:
    return store.deserialize_cdr(entry.data, "std_msgs/msg/String").data


class _Remaker:
    """Makes results again, with one segmenter at a time."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._key: tuple = ()
        self._segmenter: Segmenter | None = None
        self._updates: IncrementalSegmenter | None = None

    def row(self, trace: dict, message, labels, confidence) -> Row:
        """The result that ``trace`` tells of, from the recorded input (None: none), against what was published."""
        stamp = f"{labels.header.stamp.sec}.{labels.header.stamp.nanosec:09d}"
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
        began = perf_counter()
        try:
            volume = volume_from_bytes(message.data, message.format, frame_id=message.header.frame_id)
            made = self._make(volume, made_by)
            told = [volume_from_bytes(m.data, m.format) for m in (labels, confidence)]
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
