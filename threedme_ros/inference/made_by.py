"""What made a result: with the volume, all that is needed to make it again, bit for bit."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from threedme_ros.documents import parse_mapping

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

MAX_JSON_BYTES = 4096


class MadeByError(ValueError):
    """A text is not what `MadeBy.to_json` writes; the message says why."""


@dataclass(frozen=True)
class MadeBy:
    """checkpoint: its hash. engine, precision, device: that ran, for this result. threads: 0, the engine's
    default, one a core; never 0 for torch, whose default is whatever the process was given.

    modalities: as the segmenter was told, one a channel. update: see `threedme_ros.inference.incremental.UPDATES`. The
    network saw ``box`` (half-open ranges of D, H, W at its spacing; None: everything) in windows of at most
    ``window_voxels``; of an update that is the full pass that it builds on, ``since_full`` volumes before. All empty:
    nobody knows.
    """

    checkpoint: str = ""
    engine: str = ""
    precision: str = ""
    device: str = ""
    threads: int = 0
    modalities: tuple[str, ...] = ()
    update: str = ""
    box: Box | None = None
    window_voxels: int = 0
    since_full: int = 0

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> MadeBy:
        """MadeByError for any other text; keys that are not ours are passed over."""
        try:
            if len(text) > MAX_JSON_BYTES:
                raise ValueError(f"{len(text)} bytes, expected at most {MAX_JSON_BYTES}")
            row = parse_mapping(text)
            box = None if row["box"] is None else tuple((int(first), int(last)) for first, last in row["box"])
            if box is not None and (len(box) != 3 or any(not 0 <= first < last for first, last in box)):
                raise ValueError(f"box {box}: expected three ranges")
            return MadeBy(
                **{name: str(row[name]) for name in ("checkpoint", "engine", "precision", "device", "update")},
                threads=int(row["threads"]),
                modalities=tuple(str(m) for m in row["modalities"]),
                box=box,
                window_voxels=int(row["window_voxels"]),
                since_full=int(row.get("since_full", 0)),  # recordings of before do not tell
            )
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise MadeByError(f"trace {text[:80]!r}: expected what made a result, as JSON ({error})") from error

    @property
    def description(self) -> str:
        """In one line of at most 79 characters, the room of a NIfTI header's ``descrip``; empty if nobody knows."""
        pairs = {name: getattr(self, name) for name in ("checkpoint", "engine", "precision", "device")}
        return " ".join(f"{name}={value}" for name, value in pairs.items())[:79] if self.engine else ""


NOBODY = MadeBy()
