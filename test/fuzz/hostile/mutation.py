"""Damage that knows no format: bits, numbers, blocks, and for text lines and words."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence

Mutator = Callable[[bytes, random.Random], bytes]

MAX_BYTES = 1 << 16
INTEGERS = (0, 1, 2, -1, 4, 7, 8, 127, 128, 255, 256, 32767, -32768, 32768, 65535, 65536, 2**31 - 1, 2**31, -(2**31))
INTEGERS += (2**32 - 1, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 1e-30, 1e10, 1e38, 1e300, float("nan"), float("inf"), -float("inf"))
WORDS = (
    "0",
    "-1",
    "1",
    "1e999",
    "nan",
    "inf",
    "-inf",
    "1e-320",
    "9" * 30,
    "9" * 310,
    "-1" + "0" * 400,
    "9" * 4300,
    "9" * 4400,
    "0x7f",
    "1_000",
    "",
    "null",
    "None",
)
WORDS += ("true", "[]", "{}", "/etc/passwd", "../../etc/passwd", "LIST", "\0", "\u2028", "\ud7ff", "é" * 40, "a" * 5000)


def number_bytes(rng: random.Random, code: str) -> bytes:
    """An interesting number as struct code ``code`` has it, e.g. ``"<h"``; integers wrap round."""
    kind = code[-1]
    if kind in "fd":
        value = rng.choice(FLOATS)
        return struct.pack(code, value if kind == "d" or not 3e38 < abs(value) < float("inf") else 3e38)
    size = struct.calcsize(code)
    order = "big" if code[0] == ">" else "little"
    return (rng.choice(INTEGERS) % (1 << 8 * size)).to_bytes(size, order)


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """One to four small damages."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        _BYTE_DAMAGES[rng.randrange(len(_BYTE_DAMAGES))](out, rng)
    return bytes(out[:MAX_BYTES])


def text_mutator(words: Sequence[str] = ()) -> Mutator:
    """A mutator of text whose lines, numbers and words mean something; ``words``: the format's own."""
    known = tuple(words) * 3 + WORDS

    def mutate(data: bytes, rng: random.Random) -> bytes:
        if rng.random() < 0.2:
            return mutate_bytes(data, rng)
        text = data.decode("utf-8", "surrogateescape")
        for _ in range(rng.choice((1, 1, 1, 2))):
            text = _damaged_text(text, rng, known)
        return text.encode("utf-8", "surrogateescape")[:MAX_BYTES]

    return mutate


def _span(out: bytearray, rng: random.Random) -> tuple[int, int]:
    start = rng.randrange(len(out) + 1)
    return start, min(len(out), start + rng.choice((1, 2, 4, 8, 64, 1024)))


def _flip(out: bytearray, rng: random.Random) -> None:
    if out:
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)


def _set(out: bytearray, rng: random.Random) -> None:
    if out:
        out[rng.randrange(len(out))] = rng.choice((0, 1, 10, 32, 127, 128, 255, rng.randrange(256)))


def _number(out: bytearray, rng: random.Random) -> None:
    value = number_bytes(rng, rng.choice("<>") + rng.choice("hiqfd"))
    start = rng.randrange(len(out) + 1)
    out[start : start + len(value)] = value


def _cut(out: bytearray, rng: random.Random) -> None:
    del out[rng.randrange(len(out) + 1) :]


def _remove(out: bytearray, rng: random.Random) -> None:
    start, end = _span(out, rng)
    del out[start:end]


def _repeat(out: bytearray, rng: random.Random) -> None:
    start, end = _span(out, rng)
    out[start:start] = out[start:end] * rng.choice((1, 1, 2, 16, 200))
    del out[MAX_BYTES:]


def _insert(out: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(out) + 1)
    out[start:start] = rng.choice((b"\0" * rng.randrange(1, 64), rng.randbytes(rng.randrange(1, 16)), b"\xff" * 4))


def _overwrite(out: bytearray, rng: random.Random) -> None:
    start, end = _span(out, rng)
    other, _ = _span(out, rng)
    out[start:end] = out[other : other + end - start]


_BYTE_DAMAGES = (_flip, _flip, _flip, _set, _set, _number, _number, _cut, _remove, _repeat, _insert, _overwrite)


def _damaged_text(text: str, rng: random.Random, words: Sequence[str]) -> str:
    choice = rng.randrange(7)
    if choice == 0:  # lines: out, twice, or somewhere else
        lines = text.splitlines(keepends=True) or [""]
        line = lines.pop(rng.randrange(len(lines)))
        for _ in range(rng.choice((0, 1, 1, 2, 50))):
            lines.insert(rng.randrange(len(lines) + 1), line)
        return "".join(lines)
    start = rng.randrange(len(text) + 1)
    if choice == 1:  # a word in place of one
        end = start
        while end < len(text) and text[end].isalnum():
            end += 1
        return text[:start] + rng.choice(words) + text[end:]
    if choice == 2:
        return text[:start] + rng.choice(words) + text[start:]
    if choice == 3:  # brackets around, some deep
        opening, closing = rng.choice(("[]", "{}", "()", '""', "''"))
        depth = rng.choice((1, 1, 2, 30, 3000))
        end = rng.randrange(start, len(text) + 1)
        return text[:start] + opening * depth + text[start:end] + closing * depth + text[end:]
    if choice == 4:
        return text[:start] + chr(rng.choice((0, 9, 10, 13, 34, 58, 92, 0x85, 0x2028, 0xFFFF, 0x1F600))) + text[start:]
    if choice == 5:
        return text[:start]
    digits = [i for i, c in enumerate(text) if c.isdigit()]
    if not digits:
        return text + rng.choice(words)
    start = end = rng.choice(digits)
    while end < len(text) and (text[end].isdigit() or text[end] in ".eE-"):
        end += 1
    number = rng.choice((*map(str, INTEGERS), *map(repr, FLOATS), "9" * 310, "9" * 4300, "9" * 5000))
    return text[:start] + number + text[end:]
