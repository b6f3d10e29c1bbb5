"""YAML and JSON from files and topics -> plain values, with limits that hold before anything is built.

YAML's aliases can make a hundred bytes mean a billion nodes, both formats can nest deeper than the interpreter's stack,
and PyYAML answers odd scalars with any exception. Here all of it is a DocumentError.
"""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from threedme_ros.refusal import RefusalError

MAX_YAML_BYTES = 1 << 18
MAX_JSON_CHARACTERS = 1 << 24
MAX_DEPTH = 50
MAX_NODES = 100_000
MAX_INTEGER = 64
"""Characters of an integer in YAML: longer ones cannot be printed, and in base 60 cost the square of their length."""
YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Builds plain values only, never objects; libyaml's where PyYAML has it, ten times as fast."""


class DocumentError(RefusalError):
    """The text is no YAML or JSON, or more of it than any description of ours; the message says which and where."""


def read_yaml(path: str | Path) -> object:
    """The one document in a YAML file, as plain values. DocumentError (which does not name the file)."""
    return parse_yaml(read_text(path))


def read_text(path: str | Path) -> str:
    """A file's text, at most `MAX_YAML_BYTES` of it. DocumentError."""
    try:
        return _read(path, MAX_YAML_BYTES).decode()
    except UnicodeDecodeError as error:
        raise DocumentError(str(error)) from error


def read_json(path: str | Path) -> object:
    """The JSON in a file, as plain values. DocumentError (which does not name the file)."""
    return parse_json(_read(path, MAX_JSON_CHARACTERS))


def _read(path: str | Path, most: int) -> bytes:
    """A file of at most ``most`` bytes; of a longer one no more is read."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise DocumentError(str(error)) from error
    if len(data) > most:
        raise DocumentError(f"more than {most} bytes: is this the right file?")
    return data


def parse_yaml(text: str) -> object:
    """Plain values; aliases and merge keys as they are used in our tables, tags refused."""
    try:
        _check_yaml(text)
        return yaml.load(text, Loader=YAML_LOADER)  # a safe loader, see above
    except DocumentError:
        raise
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # ValueError: 2001-99-99, a number of 5,000 digits
        raise DocumentError(f"no usable YAML: {error}") from error


def parse_json(text: str | bytes) -> object:
    """Plain values. DocumentError."""
    if len(text) > MAX_JSON_CHARACTERS:
        raise DocumentError(f"{len(text)} characters of JSON: expected at most {MAX_JSON_CHARACTERS}")
    try:
        text = text.decode() if isinstance(text, bytes) else text  # JSON is UTF-8; the library would guess
        document = json.loads(text, object_pairs_hook=_distinct)
    except DocumentError:
        raise
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"no usable JSON: {error}") from error
    _check_depth(document)
    return document


def parse_mapping(text: str | bytes) -> dict:
    """A JSON object. DocumentError for any other text."""
    document = parse_json(text)
    if not isinstance(document, dict):
        raise DocumentError(f"JSON {type(document).__name__}: expected an object")
    return document


def _check_yaml(text: str) -> None:
    """Walk the events, which needs neither memory nor stack, and count what the document would become."""
    open_, sizes, names, total = [], {}, [], 0  # per open collection: nodes before it; its anchor
    for event in yaml.parse(text, Loader=YAML_LOADER):
        if getattr(event, "tag", None) not in (None, "!"):
            raise DocumentError(f"YAML tag {event.tag[:60]!r} in line {_line(event)}: expected plain values")
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise DocumentError(f"YAML alias {event.anchor[:60]!r} in line {_line(event)} is unknown here")
            total += sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor:
                sizes[event.anchor] = 1
            if len(event.value) > MAX_INTEGER and _is_integer(event):
                raise DocumentError(
                    f"YAML integer {event.value[:20]}... of {len(event.value)} characters in line {_line(event)}: "
                    f"expected at most {MAX_INTEGER}"
                )
        elif isinstance(event, yaml.CollectionStartEvent):
            open_.append(total)
            names.append(event.anchor)
            sizes.pop(event.anchor, None)
            total += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            before, name = open_.pop(), names.pop()
            if name:
                sizes[name] = total - before
        if len(open_) > MAX_DEPTH:
            raise DocumentError(f"YAML of more than {MAX_DEPTH} levels in line {_line(event)}")
        if total > MAX_NODES:
            raise DocumentError(f"YAML of more than {MAX_NODES} values, aliases followed, in line {_line(event)}")


def _is_integer(event: yaml.ScalarEvent) -> bool:
    """By YAML 1.1: decimal, 0b, 0x, octal or base 60."""
    return yaml.resolver.Resolver().resolve(yaml.ScalarNode, event.value, event.implicit) == "tag:yaml.org,2002:int"


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1


def _distinct(pairs: list[tuple[str, object]]) -> dict:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        double = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise DocumentError(f"JSON key {double[:60]!r} twice: expected each once")
    return found


def _check_depth(document: object) -> None:
    level = [document]
    for _ in range(MAX_DEPTH):
        level = [
            value
            for item in level
            if isinstance(item, dict | list)
            for value in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return
    raise DocumentError(f"JSON of more than {MAX_DEPTH} levels")
