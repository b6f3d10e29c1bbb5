"""The label table: one list of structures for training, the checkpoint, the node and the pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import yaml

from threedme_ros.documents import YAML_LOADER, DocumentError, parse_json, parse_yaml, read_text
from threedme_ros.refusal import RefusalError

BACKGROUND = 0
MAX_NAME = 100
"""Characters: names go to topics, frames, file names and pictures."""


class AnatomyError(RefusalError):
    """The label table breaks a rule; the message names the entry, the value and what was expected."""


class Role(StrEnum):
    """What a planner does with a structure."""

    NO_GO = "no-go"
    TARGET = "target"
    CONTEXT = "context"


@dataclass(frozen=True)
class Structure:
    """One row: ``id`` is the voxel value (1..255), ``colour`` sRGB 0..255, ``margin_mm`` the safety margin in mm."""

    id: int
    name: str
    colour: tuple[int, int, int]
    margin_mm: float
    role: Role

    def __post_init__(self) -> None:
        row = f"structure {self.name!r}"
        if not isinstance(self.name, str) or not 1 <= len(self.name) <= MAX_NAME or not self.name.isprintable():
            raise AnatomyError(f"structure name {self.name!r}: expected 1 to {MAX_NAME} printable characters")
        if type(self.id) is not int or not 1 <= self.id <= 255:
            raise AnatomyError(f"{row}: id {self.id!r}: expected an integer from 1 to 255 (0 is background)")
        colour = tuple(self.colour) if isinstance(self.colour, (list, tuple)) else ()
        if len(colour) != 3 or not all(type(c) is int and 0 <= c <= 255 for c in colour):
            raise AnatomyError(f"{row}: colour {self.colour!r}: expected three integers from 0 to 255")
        margin = self.margin_mm
        if isinstance(margin, bool) or not isinstance(margin, (int, float)) or not 0 <= margin <= 100:
            raise AnatomyError(f"{row}: margin_mm {margin!r}: expected 0 to 100 mm")
        if self.role not in list(Role):
            raise AnatomyError(f"{row}: role {self.role!r}: expected one of {[str(r) for r in Role]}")
        object.__setattr__(self, "colour", colour)
        object.__setattr__(self, "margin_mm", float(margin))
        object.__setattr__(self, "role", Role(self.role))


class Anatomy:
    """An ordered, immutable set of structures with unique ids and names."""

    def __init__(self, structures: list[Structure] | tuple[Structure, ...]) -> None:
        if not structures:
            raise AnatomyError("empty label table: expected at least one structure")
        for key in ("id", "name"):
            values = [getattr(s, key) for s in structures]
            double = next((v for v in values if values.count(v) > 1), None)
            if double is not None:
                raise AnatomyError(f"two structures with {key} {double!r}: expected each {key} once")
        self.structures = tuple(sorted(structures, key=lambda s: s.id))
        self._by_name = {s.name: s for s in self.structures}
        self._by_id = {s.id: s for s in self.structures}

    def __iter__(self) -> Iterator[Structure]:
        return iter(self.structures)

    def __len__(self) -> int:
        return len(self.structures)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Anatomy) and self.structures == other.structures

    def __getitem__(self, key: str | int) -> Structure:
        """By name or by id; AnatomyError names what the table holds."""
        table: Mapping = self._by_name if isinstance(key, str) else self._by_id
        if key not in table:
            raise AnatomyError(f"unknown structure {key!r}: expected one of {list(table)}")
        return table[key]

    def __contains__(self, key: object) -> bool:
        return key in self._by_name or key in self._by_id

    @property
    def num_classes(self) -> int:
        """Channels a segmentation head needs: the largest id, and background."""
        return self.structures[-1].id + 1

    def colour_map(self) -> np.ndarray:
        """(256, 3) uint8 sRGB, indexed by voxel value; background and unused ids are black."""
        table = np.zeros((256, 3), np.uint8)
        for s in self:
            table[s.id] = s.colour
        return table

    def to_json(self) -> str:
        return json.dumps([asdict(s) for s in self])

    @classmethod
    def from_json(cls, text: str) -> Anatomy:
        """The inverse of `to_json`; AnatomyError for any other text."""
        try:
            rows = parse_json(text)
        except DocumentError as error:
            raise AnatomyError(f"label table is no JSON: {error}") from error
        return cls._from_rows(rows)

    @classmethod
    def from_yaml(cls, path: str | Path) -> Anatomy:
        """Read config/anatomy.yaml; AnatomyError names the file, the line and the row."""
        try:
            text = read_text(path)
            document = parse_yaml(text)
        except DocumentError as error:
            raise AnatomyError(f"{path}: {error}") from error
        if not isinstance(document, dict) or not isinstance(document.get("structures"), list):
            raise AnatomyError(f"{path}: expected a mapping with a list under `structures`")
        try:
            return cls._from_rows(document["structures"], _lines(text))
        except AnatomyError as error:
            raise AnatomyError(f"{path}: {error}") from error

    @classmethod
    def _from_rows(cls, rows: object, lines: list[int] | None = None) -> Anatomy:
        """lines: where each row stands in its file, for the message of an error."""
        if not isinstance(rows, list):
            raise AnatomyError(f"label table {rows!r}: expected a list of structures")
        expected = set(Structure.__dataclass_fields__)
        structures = []
        for number, row in enumerate(rows):
            try:
                if not isinstance(row, dict) or set(row) != expected:
                    raise AnatomyError(f"row {row!r}: expected exactly the keys {sorted(expected)}")
                structures.append(Structure(**row))
                cls(structures)  # a value that an earlier row has is the later row's mistake
            except AnatomyError as error:
                raise AnatomyError(f"line {lines[number]}: {error}" if lines else str(error)) from error
        return cls(structures)


def _lines(text: str) -> list[int]:
    """The line, from 1, on which each row under `structures` begins."""
    document = yaml.compose(text, Loader=YAML_LOADER)
    found = {
        key.value: value for key, value in document.value if isinstance(key, yaml.ScalarNode)
    }  # the last one counts
    return [row.start_mark.line + 1 for row in found["structures"].value] if "structures" in found else []
