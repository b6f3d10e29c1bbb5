"""OpenIGTLink messages as an untrusted stream: header, body, checksum, and limits that hold before memory is taken.

Layout (all numbers big-endian): a 58-byte header, then the body. From header version 2 on the body is an extended
header, the content, and metadata; version 1 has the content alone. http://openigtlink.org/developers/spec
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from threedme_ros.volume import VolumeError

HEADER_BYTES = 58
HEADER_VERSIONS = (1, 2, 3)
_HEADER = struct.Struct(">H12s20sIIQQ")  # version, type, device, seconds, fraction, body size, CRC
_EXTENDED = struct.Struct(">HHII")  # own size, metadata header size, metadata size, message id
_CHUNK_BYTES = 1 << 20

Fill = Callable[[memoryview, bool], None]
"""``fill(view, idle)`` fills all of ``view``; ``idle``: the peer may be silent, or leave, before the first byte."""


class IgtlError(VolumeError):
    """Something that came over OpenIGTLink is unusable; the text names the value and what was expected."""


class StreamError(IgtlError):
    """The stream itself cannot be trusted any further: close the connection."""


class ContentError(IgtlError):
    """One whole message is unusable; the next one may be good."""


@dataclass(frozen=True)
class Limits:
    """``max_body_bytes``: a header that claims more is refused. ``check_crc``: off for senders that leave it zero."""

    max_body_bytes: int = 1 << 30
    check_crc: bool = True


@dataclass(frozen=True)
class Header:
    """``type``: e.g. "IMAGE"; ``device``: the sender's name for the content; ``stamp_ns`` since 1970, 0 if unset."""

    version: int
    type: str
    device: str
    stamp_ns: int
    body_bytes: int
    crc: int


@dataclass(frozen=True, eq=False)
class Frame:
    """One message; ``content`` lies between extended header and metadata, None where the type was not wanted."""

    header: Header
    content: memoryview | None


def read_frame(fill: Fill, limits: Limits, wanted: frozenset[str]) -> Frame:
    """The next message. One of no ``wanted`` type is read past in small steps, never held. Raises StreamError."""
    head = memoryview(bytearray(HEADER_BYTES))
    fill(head, True)
    header = parse_header(head, limits)
    if header.type not in wanted:
        _skip(fill, header, limits)
        return Frame(header, None)
    # numpy takes untouched pages: memory grows with the bytes that arrive, not with what the header claims
    body = memoryview(np.empty(header.body_bytes, np.uint8))
    crc = 0
    for start in range(0, header.body_bytes, _CHUNK_BYTES):
        chunk = body[start : start + _CHUNK_BYTES]
        fill(chunk, False)
        crc = crc64(chunk, crc) if limits.check_crc else crc
    _check_crc(header, crc, limits)
    return Frame(header, _content(header, body))


def parse_header(head: bytes | memoryview, limits: Limits) -> Header:
    """The first 58 bytes of a message. Raises StreamError."""
    version, kind, device, seconds, fraction, size, crc = _HEADER.unpack(head)
    if version not in HEADER_VERSIONS:
        raise StreamError(f"header version {version}: expected one of {list(HEADER_VERSIONS)}, is this OpenIGTLink?")
    if size > limits.max_body_bytes:
        raise StreamError(f"header claims {size} bytes: the limit is {limits.max_body_bytes}")
    stamp_ns = seconds * 1_000_000_000 + (fraction * 1_000_000_000 + (1 << 31) >> 32)
    return Header(version, _text(kind, "message type"), _text(device, "device name"), stamp_ns, size, crc)


def crc64(data: bytes | memoryview, start: int = 0) -> int:
    """The checksum of a body (ECMA-182, not reflected, no final xor); ``start``: that of what came before ``data``."""
    return _crc_function()(data, start)


@cache
def _crc_function() -> Callable[[bytes | memoryview, int], int]:
    return require_pyigtl().messages.CRC64


def require_pyigtl():
    """The package; ImportError that says how to install it."""
    try:
        import pyigtl
    except ImportError as error:
        raise ImportError(f"OpenIGTLink needs pyigtl: pip install 'threedme_ros[igtl]' ({error})") from error
    return pyigtl


def _text(field: bytes, what: str) -> str:
    text = field.split(b"\0", 1)[0].decode("latin-1").rstrip()
    if not text.isprintable() or (what == "message type" and not text.isascii()):
        raise StreamError(f"{what} {field!r}: expected printable text, is this OpenIGTLink?")
    return text


def _skip(fill: Fill, header: Header, limits: Limits) -> None:
    scratch = memoryview(bytearray(min(header.body_bytes, _CHUNK_BYTES)))
    crc, left = 0, header.body_bytes
    while left:
        chunk = scratch[: min(left, _CHUNK_BYTES)]
        fill(chunk, False)
        crc = crc64(chunk, crc) if limits.check_crc else crc
        left -= len(chunk)
    _check_crc(header, crc, limits)


def _check_crc(header: Header, crc: int, limits: Limits) -> None:
    if limits.check_crc and crc != header.crc:
        raise StreamError(f"{header.type} {header.device!r}: CRC {crc:016x}, the header says {header.crc:016x}")


def _content(header: Header, body: memoryview) -> memoryview:
    """``body`` without the extended header and the metadata of header version 2 and later."""
    if header.version == 1:
        return body
    if len(body) < _EXTENDED.size:
        raise StreamError(f"body of {len(body)} bytes: an extended header takes {_EXTENDED.size}")
    extended, index, values, _ = _EXTENDED.unpack(body[: _EXTENDED.size])
    end = len(body) - index - values
    if extended < _EXTENDED.size or extended > end:
        raise StreamError(
            f"extended header of {extended} bytes and {index + values} of metadata do not fit a body of {len(body)}"
        )
    return body[extended:end]
