"""What a compressed frame says of its own size, read before a decoder takes memory for it.

A decoder believes the codestream, not the Rows and Columns of the header: 2,666 bytes of JPEG 2000 become 13,000 x
13,000 pixels, and a run of RLE 64 times its bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from threedme_ros.dicom_elements import DicomSeriesError

RLE = "1.2.840.10008.1.2.5"
MAX_TILES = 1024
"""Of a JPEG 2000 frame: a decoder keeps some kilobytes for each before it has seen one; scanners write one to some."""
_RLE_HEADER = struct.Struct("<16L")
_RLE_PADDING = 128
"""Bytes that a segment may decode to beyond its pixels: one last run."""
_JP2_SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"
_JPEG_FRAMES = {0xC0: "baseline", 0xC1: "extended", 0xC3: "lossless", 0xF7: "JPEG-LS"}
"""The kinds of JPEG that DICOM knows, by their start-of-frame marker."""
_JPEG_OTHER_FRAMES = frozenset({0xC2, *range(0xC5, 0xD0)} - {0xC8, 0xCC})
_JPEG_SCAN = 0xDA


@dataclass(frozen=True)
class FrameSize:
    columns: int
    rows: int
    components: int = 1

    def __str__(self) -> str:
        return f"{self.columns} columns, {self.rows} rows and {self.components} components"


def check_frame(frame: bytes, syntax: str, size: FrameSize, bytes_each: int) -> None:
    """DicomSeriesError unless ``frame``, compressed as ``syntax`` (a UID), decodes to ``size``."""
    if syntax == RLE:
        _check_rle(frame, size, bytes_each)
        return
    try:
        found = _jpeg_size(frame) if frame.startswith(b"\xff\xd8") else _jpeg_2000_size(_codestream(frame))
    except (struct.error, IndexError):
        raise DicomSeriesError("a compressed DICOM frame that ends in its header: expected a whole one") from None
    if found != size:
        raise DicomSeriesError(f"a compressed DICOM frame of {found}: expected {size}, as the header says")


def _check_rle(frame: bytes, size: FrameSize, segments: int) -> None:
    if len(frame) < _RLE_HEADER.size:
        raise DicomSeriesError(f"an RLE frame of {len(frame)} bytes: expected a header of {_RLE_HEADER.size}")
    count, *offsets = _RLE_HEADER.unpack_from(frame)
    if count != segments:
        raise DicomSeriesError(f"an RLE frame of {count} segments: expected {segments}, one for each byte of a pixel")
    least = size.columns * size.rows
    most = least + _RLE_PADDING
    for start, end in zip(offsets[:count], [*offsets[1:count], len(frame)], strict=True):
        found = _unpacked(frame[start:end], most)
        if not least <= found <= most:
            raise DicomSeriesError(
                f"an RLE segment of {found} bytes{' or more' * (found > most)}: expected {least} to {most}"
            )


def _unpacked(segment: bytes, most: int) -> int:
    """How many bytes a segment decodes to (PackBits, DICOM PS3.5 G.3.2), counted no further than past ``most``."""
    at = total = 0
    while at < len(segment) and total <= most:
        code = segment[at]
        if code < 128:  # so many bytes and one, as they are
            total += code + 1
            at += code + 2
        elif code > 128:  # one byte, so often
            total += 257 - code
            at += 2
        else:
            at += 1
    return total


def _jpeg_size(frame: bytes) -> FrameSize:
    """Of the one start of frame before the first scan."""
    found, at = None, 2
    while True:
        marker = frame[at + 1]
        if frame[at] != 0xFF:
            raise DicomSeriesError(f"a JPEG frame without a marker at byte {at}: expected its header")
        if marker == 0xFF:  # filled up
            at += 1
            continue
        if marker == _JPEG_SCAN:
            if found is None:
                raise DicomSeriesError("a JPEG frame without a size before its first scan: expected one")
            return found
        if marker in _JPEG_OTHER_FRAMES or (marker in _JPEG_FRAMES and found):
            kinds = ", ".join(_JPEG_FRAMES.values())
            raise DicomSeriesError(f"a JPEG frame with a header FF{marker:02X}: expected one of {kinds}")
        if marker in _JPEG_FRAMES:
            rows, columns, components = struct.unpack_from(">2HB", frame, at + 5)
            found = FrameSize(columns, rows, components)
        at += 2 + struct.unpack_from(">H", frame, at + 2)[0]


def _codestream(frame: bytes) -> bytes:
    """A JPEG 2000 codestream; some writers leave it in the boxes of a JP2 file."""
    if not frame.startswith(_JP2_SIGNATURE):
        return frame
    at = 0
    while True:
        size, kind = struct.unpack_from(">L4s", frame, at)
        if kind == b"jp2c":
            return frame[at + 8 : at + 8 + 64] if size != 1 else frame[at + 16 : at + 16 + 64]
        if size < 8:
            raise DicomSeriesError(f"a JPEG 2000 box of {size} bytes: expected 8 or more")
        at += size


def _jpeg_2000_size(codestream: bytes) -> FrameSize:
    """Of the SIZ marker, which ITU-T T.800 A.5.1 puts first."""
    if not codestream.startswith(b"\xff\x4f\xff\x51"):
        raise DicomSeriesError("a compressed DICOM frame of no known kind: expected JPEG, JPEG-LS or JPEG 2000")
    right, bottom, left, top, *tile, components = struct.unpack_from(">8LH", codestream, 8)
    width, height, tile_left, tile_top = tile
    if not (width and height and tile_left <= left < right and tile_top <= top < bottom):
        raise DicomSeriesError(f"a JPEG 2000 frame of tiles {tile}: expected them to cover it")
    tiles = -(-(right - tile_left) // width) * -(-(bottom - tile_top) // height)
    if tiles > MAX_TILES:
        raise DicomSeriesError(f"a JPEG 2000 frame of {tiles} tiles: expected at most {MAX_TILES}")
    return FrameSize(right - left, bottom - top, components)
