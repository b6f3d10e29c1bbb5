"""Log lines that a person reads and a machine parses, and a line that repeats is written once in a while, with a count.

A line is ``text | event=volume_refused key=value ...``; a value with a space, a quote or an equals sign is a JSON
string, which holds no ``|``. A traceback may follow, on lines of its own.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

PERIOD_S = 5.0
"""Between two lines of one event that goes on and on; of one source, where the event has several."""

BURST = 5
"""Lines that may come at once before that."""

MAX_SOURCES = 256
MAX_TEXT = 600
MAX_VALUE = 200
SEPARATOR = " | "
_BARE = re.compile(r"[^\s\"=|]+")
_PAIR = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|[^\s"]*)(?: |$)')


def log_line(text: str, event: str, fields: Mapping[str, object]) -> str:
    """One line, whatever is in ``text`` and ``fields``."""
    pairs = " ".join(f"{key}={_value(value)}" for key, value in {"event": event, **fields}.items())
    plain = "".join(c if c.isprintable() else "?" for c in " ".join(text.split())[:MAX_TEXT])  # no terminal obeys it
    return f"{plain}{SEPARATOR}{pairs}"


def parse_log_line(line: str) -> dict[str, str]:
    """The keys of a line that `log_line` made, and its ``text``; empty for any other line."""
    text, separator, pairs = line.partition("\n")[0].rpartition(f"{SEPARATOR}event=")
    if not separator:
        return {}
    found = {}
    for key, value in _PAIR.findall("event=" + pairs):
        found[key] = json.loads(value) if value.startswith('"') else value
    return {"text": text, **found}


def _value(value: object) -> str:
    text = str(value)[:MAX_VALUE]
    # a value must not end the text before its own key begins
    return text if _BARE.fullmatch(text) and text.isprintable() else json.dumps(text).replace("|", r"\u007c")


@dataclass
class _Told:
    """Of one source: how many lines it may still write, as of when, and what it said since without writing it."""

    at_s: float
    left: float = BURST
    suppressed: int = 0
    last: tuple[str, str, str, Mapping[str, object]] | None = None  # level, text, event, fields

    def may(self, now_s: float) -> bool:
        """Take one of the lines that are left at ``now_s``."""
        self.left = min(BURST, self.left + (now_s - self.at_s) / PERIOD_S)
        self.at_s = now_s
        if self.left < 1:
            return False
        self.left -= 1
        return True

    def taken(self) -> tuple[int, tuple[str, str, str, Mapping[str, object]]]:
        suppressed, last = self.suppressed, self.last
        self.suppressed, self.last = 0, None
        return suppressed, last


class EventLog:
    """A node's logger for events; safe from any thread.

    A source may write `BURST` lines at once and one in `PERIOD_S` after that. What it says beyond is counted, and
    `flush` (call it once a second) writes the last of it with ``suppressed=N`` when a line is free again: a flood costs
    a line every 5 s, and nothing that was said is lost without a number.
    """

    def __init__(self, logger, clock: Callable[[], float] = time.monotonic) -> None:
        """logger: with info, warning and error, as rclpy's. clock: s, never steps."""
        self._logger, self._clock = logger, clock
        self._lock = threading.Lock()
        self._told: OrderedDict[str, _Told] = OrderedDict()

    def info(self, event: str, text: str, **fields: object) -> None:
        self._log("info", event, text, fields)

    def warning(self, event: str, text: str, **fields: object) -> None:
        self._log("warning", event, text, fields)

    def error(self, event: str, text: str, *, trace: str = "", **fields: object) -> None:
        """trace: a traceback, written below the line; of what is suppressed it is left out."""
        self._log("error", event, text, fields, trace)

    def flush(self, everything: bool = False) -> None:
        """Write what was suppressed as far as a line is free for it; or everything, at the end."""
        now_s = self._clock()
        with self._lock:
            lines = [t.taken() for t in self._told.values() if t.last and (everything or t.may(now_s))]
        for line in lines:
            self._suppressed(*line)

    def _log(self, level: str, event: str, text: str, fields: Mapping[str, object], trace: str = "") -> None:
        now_s, source = self._clock(), f"{event} {fields.get('source', '')}"
        earlier = []
        with self._lock:
            told = self._told.setdefault(source, _Told(now_s))
            self._told.move_to_end(source)
            if not told.may(now_s):
                told.suppressed += 1
                told.last = (level, text, event, fields)
                return
            if told.last:
                earlier.append(told.taken())
            if len(self._told) > MAX_SOURCES:
                _, oldest = self._told.popitem(last=False)
                earlier += [oldest.taken()] if oldest.last else []
        for line in earlier:
            self._suppressed(*line)
        line = log_line(text, event, fields)
        self._write(level, f"{line}\n{trace}" if trace else line)

    def _suppressed(self, count: int, last: tuple[str, str, str, Mapping[str, object]]) -> None:
        level, text, event, fields = last
        self._write(level, log_line(text, event, {**fields, "suppressed": count}))

    def _write(self, level: str, line: str) -> None:
        # rclpy ties a line's severity to its place in the code: one place for each
        if level == "info":
            self._logger.info(line)
        elif level == "warning":
            self._logger.warning(line)
        else:
            self._logger.error(line)
