"""Round trips and lies, drawn by hypothesis: what is encoded comes back, what a header says is never just believed."""

import gzip
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from threedme_ros.volume import Volume, VolumeError
from threedme_ros.volume_io import FORMATS, volume_from_bytes, volume_to_bytes

PROFILE = settings(deadline=None, derandomize=True, max_examples=60)
DTYPES = [np.dtype(f"<{kind}") for kind in ("u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")]
INTERESTING = st.sampled_from([0, 1, -1, 2, 127, 255, 32767, -32768, 65535, 2**31 - 1, -(2**31)])
# name -> (offset, struct code) of NIfTI-1
FIELDS = {
    "sizeof_hdr": (0, "<i"), "datatype": (70, "<h"), "bitpix": (72, "<h"), "vox_offset": (108, "<f"),
    "scl_slope": (112, "<f"), "scl_inter": (116, "<f"), "xyzt_units": (123, "<B"), "qform_code": (252, "<h"),
    "sform_code": (254, "<h"), "magic": (344, "<i"),
    **{f"dim[{i}]": (40 + 2 * i, "<h") for i in range(8)}, **{f"pixdim[{i}]": (76 + 4 * i, "<f") for i in range(8)},
    **{f"srow[{i}]": (280 + 4 * i, "<f") for i in range(12)},
}  # fmt: skip


@st.composite
def affines(draw) -> np.ndarray:
    """Well-conditioned: a rotation, spacings, a little shear and an origin, as float32 values."""
    number = st.floats(-1, 1, width=32)
    turn, _ = np.linalg.qr(np.reshape([draw(number) for _ in range(9)], (3, 3)) + 3 * np.eye(3))
    affine = np.eye(4)
    affine[:3, :3] = turn * [draw(st.floats(0.125, 8, width=32)) for _ in range(3)]
    affine[0, 1] += draw(st.floats(-0.0625, 0.0625, width=32))
    affine[:3, 3] = [draw(st.floats(-2000, 2000, width=32)) for _ in range(3)]
    return affine.astype(np.float32).astype(np.float64)


@st.composite
def volumes(draw) -> Volume:
    shape = draw(st.tuples(*[st.integers(1, 6)] * 3))
    voxels = draw(arrays.arrays(draw(st.sampled_from(DTYPES)), shape))
    order = draw(st.permutations(range(3)))  # any memory layout
    voxels = np.asfortranarray(voxels.transpose(order)).transpose(np.argsort(order))
    return Volume(voxels, draw(affines()))


@pytest.mark.parametrize("format", FORMATS)
@PROFILE
@given(volume=volumes())
def test_encode_then_decode_is_the_identity(format, volume):
    back = volume_from_bytes(volume_to_bytes(volume, format), format)
    assert back.voxels.dtype == volume.voxels.dtype
    np.testing.assert_array_equal(back.voxels, volume.voxels)
    np.testing.assert_array_equal(back.affine, volume.affine)


@pytest.mark.parametrize("format", FORMATS)
def test_cut_off_at_any_byte_it_is_refused(format):
    data = bytes(volume_to_bytes(Volume(np.arange(24, dtype="i2").reshape(2, 3, 4), np.eye(4)), format))
    for end in range(len(data)):
        with pytest.raises(VolumeError):
            volume_from_bytes(data[:end], format)


@pytest.mark.parametrize("name", FIELDS)
@PROFILE
@given(value=INTERESTING | st.floats(width=32), wrapped=st.booleans())
def test_a_header_that_lies_in_one_field_is_found_out_or_harmless(name, value, wrapped):
    voxels = np.arange(24, dtype="i2").reshape(2, 3, 4)
    data = volume_to_bytes(Volume(voxels, np.diag([1, 2, 3, 1])))
    offset, code = FIELDS[name]
    if code == "<f":
        packed = struct.pack(code, float(value))
    else:
        size = struct.calcsize(code)
        integer = int(value) if np.isfinite(value) else 0
        packed = (integer % (1 << 8 * size)).to_bytes(size, "little")
    data[offset : offset + len(packed)] = packed
    format, data = ("nifti; gzip", gzip.compress(bytes(data))) if wrapped else ("nifti", bytes(data))
    try:
        volume = volume_from_bytes(data, format, max_voxels=1000)
    except VolumeError:
        return
    assert volume.voxels.size == voxels.size and np.isfinite(volume.affine).all()
    if not name.startswith(("scl", "dim", "datatype")):
        np.testing.assert_array_equal(volume.voxels, voxels)


@PROFILE
@given(garbage=st.binary(max_size=600), format=st.sampled_from(FORMATS))
def test_garbage_is_refused(garbage, format):
    with pytest.raises(VolumeError):
        volume_from_bytes(garbage, format)
