"""Round trips and lies on the wire, drawn by hypothesis."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from threedme_ros.igtl import content
from threedme_ros.igtl.wire import HEADER_BYTES, StreamError, crc64
from threedme_ros.volume import Volume, VolumeError

pytest.importorskip("pyigtl", reason="pyigtl is not installed: pip install 'threedme_ros[igtl]'")

PROFILE = settings(deadline=None, derandomize=True, max_examples=80)
DTYPES = [np.dtype(f"<{kind}") for kind in ("i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8")]
SPACING = st.floats(0.125, 8, width=32)
PLACE = st.floats(-2000, 2000, width=32)


@st.composite
def volumes(draw) -> Volume:
    shape = draw(st.tuples(*[st.integers(2, 5)] * 3))
    affine = np.diag([*[draw(SPACING) for _ in range(3)], 1.0])
    affine[:3, 3] = [draw(PLACE) for _ in range(3)]
    return Volume(draw(arrays.arrays(draw(st.sampled_from(DTYPES)), shape)), affine)


@PROFILE
@given(volume=volumes(), stamp_s=st.floats(1, 2**31, allow_subnormal=False))
def test_an_image_comes_back_with_its_voxels_place_and_stamp(read, volume, stamp_s):
    frame = read(content.image_bytes(volume, "ct", stamp_s))
    back = content.volume_from_image(frame, frame_id="patient", max_voxels=1000)
    np.testing.assert_array_equal(back.voxels, volume.voxels)
    assert back.voxels.dtype == volume.voxels.dtype
    np.testing.assert_allclose(back.affine, volume.affine, rtol=1e-5, atol=2e-3)  # the wire has the centre, in float32
    assert frame.header.stamp_ns == pytest.approx(stamp_s * 1e9, abs=1000)


@PROFILE
@given(data=st.data(), value=st.integers(0, 2**32 - 1))
def test_an_image_header_that_lies_anywhere_is_found_out_or_harmless(read, data, value):
    volume = Volume(np.arange(24, dtype="i2").reshape(2, 3, 4), np.eye(4))
    message = bytearray(content.image_bytes(volume, "ct", 1.0))
    offset = data.draw(st.integers(0, 70))
    message[HEADER_BYTES + offset : HEADER_BYTES + offset + 2] = (value % 65536).to_bytes(2, "big")
    message[50:58] = struct.pack(">Q", crc64(bytes(message[HEADER_BYTES:])))
    try:
        back = content.volume_from_image(read(bytes(message)), frame_id="patient", max_voxels=1000)
    except VolumeError:
        return
    assert back.voxels.nbytes == volume.voxels.nbytes and np.isfinite(back.affine).all()


def test_a_message_cut_off_at_any_byte_ends_the_stream(read):
    message = content.image_bytes(Volume(np.zeros((2, 2, 2), "u1"), np.eye(4)), "ct", 1.0)
    for end in range(len(message)):
        with pytest.raises((StreamError, EOFError)):
            read(message[:end])
