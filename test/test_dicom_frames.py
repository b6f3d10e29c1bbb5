"""Frames written by Pillow, or byte by byte by the standards' tables."""

import io
import struct

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from threedme_ros.dicom_frames import MAX_TILES, DicomSeriesError, FrameSize, check_frame

SIZE = FrameSize(columns=6, rows=5)


def frame(kind="JPEG", shape=(5, 6), **options) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)).save(out, kind, **options)
    return out.getvalue()


def codestream(**options) -> bytes:
    return frame("JPEG2000", no_jp2=True, **options)


def siz(right=6, bottom=5, left=0, top=0, tile=(6, 5, 0, 0), components=1) -> bytes:
    """SOC and SIZ of ITU-T T.800 A.5.1."""
    return b"\xff\x4f\xff\x51" + struct.pack(">2H8LH", 41, 0, right, bottom, left, top, *tile, components)


def sof(marker=0xC0, rows=5, columns=6, components=1) -> bytes:
    return struct.pack(">2BHB2HB", 0xFF, marker, 8 + 3 * components, 8, rows, columns, components) + bytes(
        3 * components
    )


def rle(*segments: bytes) -> bytes:
    offsets = np.cumsum([64, *map(len, segments)])[: len(segments)]
    return struct.pack("<16L", len(segments), *offsets, *[0] * (15 - len(segments))) + b"".join(segments)


RUN_OF_30, RUN_OF_128 = bytes([257 - 30, 7]), bytes([257 - 128, 7])
LITERAL_30 = bytes([29, *range(30)])

GOOD = [
    (JPEGBaseline8Bit, frame(), 1),
    (JPEGLSLossless, b"\xff\xd8\xff" + sof(0xF7) + b"\xff\xda", 2),
    (JPEG2000Lossless, codestream(), 1),
    (JPEG2000Lossless, frame("JPEG2000"), 1),  # in the boxes of a JP2 file
    (JPEG2000Lossless, siz(16, 15, 10, 10, (100, 100, 3, 3)), 2),
    (RLELossless, rle(RUN_OF_30), 1),
    (RLELossless, rle(RUN_OF_30 + b"\x80\0", LITERAL_30 + b"\0"), 2),
]


@pytest.mark.parametrize(("syntax", "data", "bytes_each"), GOOD)
def test_a_frame_of_the_headers_size_passes(syntax, data, bytes_each):
    check_frame(data, syntax, SIZE, bytes_each)


BAD = [
    (frame(shape=(60, 70)), "of 70 columns, 60 rows and 1 components: expected 6 columns, 5 rows and 1"),
    (frame(shape=(5, 6, 3)), "of 6 columns, 5 rows and 3 components"),
    (b"\xff\xd8" + sof() + sof(rows=13000) + b"\xff\xda", "a JPEG frame with a header FFC0"),
    (frame(progressive=True), "a JPEG frame with a header FFC2: expected one of baseline"),
    (b"\xff\xd8\xff\xda\0\2", "without a size before its first scan"),
    (b"\xff\xd8\0\0\0", "without a marker at byte 2"),
    (siz(13000, 13000, tile=(13000, 13000, 0, 0)), "of 13000 columns, 13000 rows"),
    (siz(components=16384), "16384 components"),
    (siz(tile=(0, 1, 0, 0)), r"tiles \[0, 1, 0, 0\]: expected them to cover it"),
    (siz(256, 255, tile=(1, 1, 0, 0)), f"65280 tiles: expected at most {MAX_TILES}"),
    (b"\x89PNG\r\n\x1a\n", "of no known kind"),
    (b"", "of no known kind"),
    (frame("JPEG2000")[:12] + bytes(20), "a JPEG 2000 box of 0 bytes"),
]


@pytest.mark.parametrize(("data", "reason"), BAD, ids=[reason for _, reason in BAD])
def test_a_frame_of_another_size_is_refused_by_its_size(data, reason):
    with pytest.raises(DicomSeriesError, match=reason):
        check_frame(data, JPEGBaseline8Bit, SIZE, 1)


BAD_RLE = [
    (rle(RUN_OF_128 * 2), 1, "an RLE segment of 256 bytes or more: expected 30 to 158"),
    (rle(RUN_OF_30, RUN_OF_128 * 1000), 2, "an RLE segment of 256 bytes or more"),
    (rle(LITERAL_30, b""), 2, "an RLE segment of 0 bytes: expected 30 to 158"),
    (rle(RUN_OF_30), 2, "an RLE frame of 1 segments: expected 2"),
    (b"\1" + bytes(62), 1, "an RLE frame of 63 bytes: expected a header of 64"),
]


@pytest.mark.parametrize(("data", "bytes_each", "reason"), BAD_RLE, ids=[reason for *_, reason in BAD_RLE])
def test_an_rle_frame_that_unpacks_to_more_is_refused(data, bytes_each, reason):
    with pytest.raises(DicomSeriesError, match=reason):
        check_frame(data, RLELossless, SIZE, bytes_each)


@pytest.mark.parametrize("data", (frame(), codestream(), frame("JPEG2000")), ids=("jpeg", "j2k", "jp2"))
def test_a_frame_cut_off_in_its_header_is_refused(data):
    kind = b"\xff\xda" if data.startswith(b"\xff\xd8") else b"\xff\x51"
    for end in range(data.index(kind)):
        with pytest.raises(DicomSeriesError):
            check_frame(data[:end], JPEGBaseline8Bit, SIZE, 1)
