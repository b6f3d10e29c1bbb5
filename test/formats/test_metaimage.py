"""Known answers from SimpleITK, and what a header must not talk us into."""

import os
import tracemalloc
import zlib

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 the library's own abbreviation

from threedme_ros.volume import VolumeError
from threedme_ros.volume_io import VolumeIOError, read_volume

TEXT = """ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = False
TransformMatrix = 0 1 0 0 0 1 1 0 0
Offset = 7 8 9
ElementSpacing = 1 2 3
DimSize = 5 4 3
ElementType = MET_SHORT
ElementDataFile = LOCAL
"""
VOXELS = np.arange(60, dtype="<i2")


DATA = VOXELS.tobytes()


def write(tmp_path, text=TEXT, data=DATA, name="x.mha"):
    path = tmp_path / name
    path.write_bytes(text.encode() + data)
    return path


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        TEXT.replace("MET_SHORT", "MET_USHORT"),
        TEXT.replace("Offset", "Origin").replace("TransformMatrix", "Orientation"),
        TEXT.replace("ElementSpacing", "ElementSize"),
        TEXT.replace("ElementSpacing", "ElementSize = 9 9 9\nElementSpacing"),
        TEXT.replace("TransformMatrix = 0 1 0 0 0 1 1 0 0\n", ""),
        TEXT.replace("Offset = 7 8 9\n", ""),
        TEXT.replace("\n", "\r\n"),
    ],
)
def test_every_spelling_is_placed_as_simpleitk_places_it(tmp_path, text):
    path = write(tmp_path, text)
    image, volume = sitk.ReadImage(str(path)), read_volume(path)
    np.testing.assert_array_equal(volume.voxels, sitk.GetArrayFromImage(image).T)
    for index in ((0, 0, 0), (4, 0, 0), (0, 3, 0), (4, 3, 2)):
        expected = np.array([-1, -1, 1]) * image.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose(volume.affine[:3] @ (*index, 1), expected, atol=1e-4)


@pytest.mark.parametrize("dtype", ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"))
@pytest.mark.parametrize("compressed", (False, True))
@pytest.mark.parametrize("name", ("x.mha", "x.mhd"))
def test_reads_what_simpleitk_writes(tmp_path, dtype, compressed, name):
    path = tmp_path / name
    sitk.WriteImage(sitk.GetImageFromArray(VOXELS.reshape(3, 4, 5).astype(dtype)), str(path), compressed)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.voxels, VOXELS.reshape(3, 4, 5).T)
    assert volume.voxels.dtype == dtype


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("LOCAL", "/etc/passwd", "ElementDataFile '/etc/passwd': expected LOCAL"),
        ("LOCAL", "../secret.raw", "expected LOCAL"),
        ("LOCAL", "LIST", "expected LOCAL"),
        ("LOCAL", "%03d.raw 1 3 1", "expected LOCAL"),
        ("LOCAL", "a\0b.raw", r"'a\\x00b.raw': expected LOCAL"),
        ("LOCAL", "none.raw", "No such file"),
    ],
)
def test_no_file_is_opened_but_one_beside_the_header(tmp_path, old, new, reason):
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "secret.raw").write_bytes(VOXELS.tobytes())
    with pytest.raises(VolumeIOError, match=reason):
        read_volume(write(folder, TEXT.replace(old, new), b"", "x.mhd"))


def test_an_mha_does_not_name_another_file(tmp_path):
    (tmp_path / "x.raw").write_bytes(VOXELS.tobytes())
    with pytest.raises(VolumeIOError, match="expected LOCAL"):
        read_volume(write(tmp_path, TEXT.replace("LOCAL", "x.raw"), b""))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("DimSize = 5 4 3", "DimSize = -5 4 -3", "at least one voxel"),
        ("DimSize = 5 4 3", "DimSize = 99999 99999 99999", "too many voxels"),
        ("DimSize = 5 4 3", f"DimSize = {'9' * 4000} 4 3", "more than 63 bits"),
        ("DimSize = 5 4 3", f"DimSize = {'9' * 5000} 4 3", "expected 3 numbers"),
        ("DimSize = 5 4 3", "DimSize = 5 4", "expected 3 numbers"),
        ("NDims = 3", "NDims = 2000000000", "2000000000 dimensions"),
        ("NDims = 3", "NDims = x", "NDims 'x'"),
        ("MET_SHORT", "MET_FLOAT_ARRAY", "expected a real scalar"),
        ("MET_SHORT", "MET_INT", "truncated"),
        ("MET_SHORT", "MET_UCHAR", "trailing data"),
        ("ElementSpacing = 1 2 3", "ElementSpacing = 1 nan 3", "expected positive mm"),
        ("ElementSpacing = 1 2 3", "ElementSpacing = 1 0 3", "expected positive mm"),
        ("ElementSpacing = 1 2 3\n", "", "no ElementSpacing"),
        ("0 1 0 0 0 1 1 0 0", "0 1 0 0 1 0 1 0 0", "singular affine"),
        ("0 1 0 0 0 1 1 0 0", "inf 1 0 0 0 1 1 0 0", "expected finite numbers"),
        ("BinaryData = True", "BinaryData = False", "as text"),
        ("BinaryData = True", "BinaryData = maybe", "expected True or False"),
        ("BinaryDataByteOrderMSB = False\n", "", "without ElementByteOrderMSB"),
        ("NDims = 3", "NDims = 3\nHeaderSize = -1", "HeaderSize"),
        ("NDims = 3", "NDims = 3\nNDims = 4", "each key once"),
        ("NDims = 3", "NDims = 3\nElementNumberOfChannels = 3", "3 values a voxel"),
        ("ObjectType = Image", "ObjectType = Tube", "expected Image"),
        ("ElementDataFile = LOCAL", "no key", "expected `Key = value`"),
        ("ElementDataFile = LOCAL\n", "", "not MetaImage"),
    ],
)
def test_a_bad_header_is_refused_with_the_reason(tmp_path, old, new, reason):
    assert old in TEXT
    with pytest.raises(VolumeError, match=reason):
        read_volume(write(tmp_path, TEXT.replace(old, new)))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (zlib.compress(VOXELS.tobytes() + bytes(10 << 20)), "compressed data of 120[+] bytes: expected 120"),
        (zlib.compress(VOXELS.tobytes()[:-1]), "compressed data of 119 bytes"),
        (zlib.compress(VOXELS.tobytes())[:-3], "all there"),
        (b"no zlib", "damaged zlib stream"),
        (b"", "cannot hold them"),
    ],
)
def test_compressed_voxels_expand_to_what_the_header_claims_and_no_further(tmp_path, data, reason):
    path = write(tmp_path, TEXT.replace("NDims", "CompressedData = True\nNDims"), data)
    tracemalloc.start()
    with pytest.raises(VolumeError, match=reason):
        read_volume(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_voxels_of_several_steps_expand_in_small_pieces(tmp_path, monkeypatch):
    fed = []

    class Inflate:
        def __init__(self, real):
            self._real = real

        def decompress(self, data, limit):
            fed.append(len(data))
            return self._real.decompress(data, limit)

        def __getattr__(self, name):
            return getattr(self._real, name)

    real = zlib.decompressobj
    monkeypatch.setattr(zlib, "decompressobj", lambda wbits: Inflate(real(wbits)))
    voxels = np.random.default_rng(0).integers(0, 256, (64, 128, 512), np.uint8)  # 4 MiB that do not compress
    text = TEXT.replace("NDims", "CompressedData = True\nNDims").replace("MET_SHORT", "MET_UCHAR")
    path = write(tmp_path, text.replace("5 4 3", "512 128 64"), zlib.compress(voxels.tobytes()))
    np.testing.assert_array_equal(read_volume(path).voxels, voxels.T)
    assert sum(fed) < 2 * voxels.size  # linear: what is left is not handed over again and again


def test_a_pipe_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "x.nii")
    with pytest.raises(VolumeIOError, match="not a regular file"):
        read_volume(tmp_path / "x.nii")
