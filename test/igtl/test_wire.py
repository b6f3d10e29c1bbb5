import random
import struct

import numpy as np
import pytest

from threedme_ros.igtl import content, poses
from threedme_ros.igtl.wire import HEADER_BYTES, Header, Limits, StreamError, crc64, parse_header
from threedme_ros.volume import Volume, VolumeError

pyigtl = pytest.importorskip("pyigtl", reason="pyigtl is not installed: pip install 'threedme_ros[igtl]'")

MATRIX = np.array([[1, 0, 0, 10], [0, 0, -1, 20], [0, 1, 0, 30], [0, 0, 0, 1.0]])


def packed(header_version=1, metadata=None, stamp_s=1700000000.25, device="ProbeToTracker"):
    message = pyigtl.TransformMessage(MATRIX, timestamp=stamp_s, device_name=device)
    message.header_version, message.metadata = header_version, metadata or {}
    return message.pack()


def with_header(data: bytes, **changes) -> bytes:
    """``data`` with other header fields: version, type, device, seconds, fraction, size, crc."""
    names = ("version", "type", "device", "seconds", "fraction", "size", "crc")
    fields = dict(zip(names, struct.unpack(">H12s20sIIQQ", data[:HEADER_BYTES]), strict=True)) | changes
    return struct.pack(">H12s20sIIQQ", *fields.values()) + data[HEADER_BYTES:]


def test_checksum_is_openigtlinks():
    # ECMA-182 over "123456789", not reflected, start 0: the catalogue's check value of CRC-64/ECMA-182
    assert crc64(b"123456789") == 0x6C40DF5F0B497347
    assert crc64(b"6789", crc64(b"12345")) == crc64(b"123456789")


def test_header_fields_and_a_stamp_exact_to_a_nanosecond():
    header = parse_header(packed()[:HEADER_BYTES], Limits())
    assert header == Header(1, "TRANSFORM", "ProbeToTracker", 1700000000_250000000, 48, header.crc)


@pytest.mark.parametrize(("version", "metadata"), [(1, None), (2, None), (2, {"a": "1", "bb": "22"}), (3, {"a": "1"})])
def test_content_is_the_same_in_every_header_version(read, version, metadata):
    data = packed(min(version, 2), metadata)
    frame = read(with_header(data, version=version))
    assert frame.header.version == version
    np.testing.assert_array_equal(content.matrix_from_transform(frame), MATRIX)


def test_types_nobody_asked_for_are_read_past(read):
    frame = read(pyigtl.StringMessage("x" * 100, device_name="text").pack())
    assert frame.header.type == "STRING" and frame.content is None


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (with_header(packed(), size=2**31), "header claims 2147483648 bytes: the limit is 1000000"),
        (with_header(packed(), size=2**64 - 1), "the limit is 1000000"),
        (with_header(packed(), crc=1), "CRC .*, the header says 0000000000000001"),
        (with_header(pyigtl.StringMessage("x", device_name="t").pack(), crc=1), "STRING 't': CRC"),
        (with_header(packed(), version=0), "header version 0: expected one of"),
        (b"GET / HTTP/1.1\r\n" + b"x" * 60, "header version 18245"),
        (with_header(packed(), type=b"\x01\x02"), "message type .* expected printable text"),
        (with_header(packed(), version=2), "extended header of .* do not fit a body of 48"),
    ],
)
def test_streams_that_cannot_be_trusted_are_refused(read, data, reason):
    with pytest.raises(StreamError, match=reason):
        read(data, max_body_bytes=1_000_000)


def test_wrong_checksum_passes_only_where_it_is_asked_for(read):
    assert read(with_header(packed(), crc=0), check_crc=False).header.type == "TRANSFORM"


def test_memory_grows_with_what_arrives_not_with_what_is_claimed(read):
    def resident_mb():
        with open("/proc/self/statm") as file:  # noqa: PTH123
            return int(file.read().split()[1]) * 4096 / 1e6

    before = resident_mb()
    with pytest.raises(EOFError):
        read(with_header(packed(), type=b"IMAGE", size=1_000_000_000))
    assert resident_mb() - before < 100


def test_ten_thousand_broken_messages_raise_nothing_but_refusals(read, seeds):
    rng = random.Random(7)
    decoded = refused = 0
    for _ in range(10_000):
        try:
            frame = read(broken(rng, rng.choice(seeds)), max_body_bytes=100_000)
            if frame.content is not None and frame.header.type == "IMAGE":
                volume = content.volume_from_image(frame, frame_id="patient", max_voxels=10_000)
                assert isinstance(volume, Volume) and np.isfinite(volume.affine).all()
            elif frame.content is not None:
                names = poses.frame_names(frame.header.device, "patient")
                poses.pose_from_matrix(content.matrix_from_transform(frame), *names)
            decoded += 1
        except (VolumeError, EOFError):
            refused += 1
    assert decoded > 500 and refused > 5000


def broken(rng: random.Random, data: bytes) -> bytes:
    """Flipped, cut, overwritten or lengthened; half of the time with a checksum that is right again."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        kind = rng.randrange(5)
        at = rng.randrange(len(data)) if rng.random() < 0.3 else rng.randrange(min(140, len(data)))
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at] = rng.choice((0, 1, 2, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            data[at : at + 4] = rng.choice((b"\xff" * 4, b"\0" * 4, b"\x7f\xc0\0\0", rng.randbytes(4)))
        elif kind == 3:
            data = data[: max(at, 1)] if rng.random() < 0.3 else data
        else:
            data += rng.randbytes(rng.randrange(20))
    if len(data) > HEADER_BYTES and rng.random() < 0.6:
        body = bytes(data[HEADER_BYTES:])
        data = with_header(bytes(data), size=len(body), crc=crc64(body))
    return bytes(data)
