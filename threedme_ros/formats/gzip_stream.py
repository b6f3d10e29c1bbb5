"""Expanding gzip that a stranger sent: into memory the caller has sized, and never a byte more."""

from __future__ import annotations

import zlib

from threedme_ros.volume import VolumeIOError

GZIP_MAGIC = b"\x1f\x8b"
MAX_RATIO = 1032
"""What deflate can expand at most, a property of the format: a claim beyond it is a lie, known before allocating."""
MAX_MEMBERS = 1 << 16
_WBITS = 31  # gzip wrapper, whose CRC and length zlib checks
_INPUT_STEP = 1 << 16
_OUTPUT_STEP = 1 << 20


class GzipStream:
    """Reads a gzip file, concatenated members included, from ``data`` in bounded steps.

    Raises VolumeIOError when it is damaged, ends early, or has bytes after it.
    """

    def __init__(self, data: memoryview) -> None:
        if bytes(data[:2]) != GZIP_MAGIC:
            raise VolumeIOError(f"not gzip: starts with {bytes(data[:2])!r}, expected {GZIP_MAGIC!r}")
        self._data = data
        self._position = 0
        self._pending: bytes | memoryview = b""
        self._inflate = zlib.decompressobj(_WBITS)
        self._members = 1

    def read(self, size: int) -> bytearray:
        """Exactly ``size`` more bytes, or VolumeIOError."""
        if size > len(self._data) * MAX_RATIO:
            raise VolumeIOError(f"truncated: {size} bytes claimed, {len(self._data)} gzipped bytes cannot hold them")
        out = bytearray(size)
        filled = 0
        while filled < size:
            piece = self._pull(min(size - filled, _OUTPUT_STEP))
            if not piece:
                raise VolumeIOError(f"truncated: gzip expands to {filled} bytes where {size} were claimed")
            out[filled : filled + len(piece)] = piece
            filled += len(piece)
        return out

    def finish(self) -> None:
        """VolumeIOError unless the stream ends here, checksum included."""
        if self._pull(1):
            raise VolumeIOError("trailing data: gzip expands past the size the header claims")

    def _pull(self, limit: int) -> bytes:
        """1 to ``limit`` bytes; empty at the clean end of the stream."""
        while True:
            if self._inflate.eof and not self._next_member():
                return b""
            if not self._pending:
                self._pending = self._data[self._position : self._position + _INPUT_STEP]
                self._position += len(self._pending)
            starved = not self._pending
            try:
                piece = self._inflate.decompress(self._pending, limit)
            except zlib.error as error:
                raise VolumeIOError(f"damaged gzip: {error}") from error
            self._pending = self._inflate.unconsumed_tail
            if piece:
                return piece
            if starved and not self._inflate.eof:
                raise VolumeIOError(f"truncated: gzip stream of {len(self._data)} bytes ends early")

    def _next_member(self) -> bool:
        self._position -= len(self._inflate.unused_data)
        rest = self._data[self._position :]
        if not rest:
            return False
        if bytes(rest[:2]) != GZIP_MAGIC:
            raise VolumeIOError(f"trailing data: {len(rest)} bytes after the gzip stream")
        self._members += 1
        if self._members > MAX_MEMBERS:
            raise VolumeIOError(f"gzip of more than {MAX_MEMBERS} members: expected one")
        self._inflate = zlib.decompressobj(_WBITS)
        self._pending = b""
        return True
