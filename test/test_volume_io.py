import array
import gzip
import tracemalloc
import zlib

import nibabel as nib
import nrrd as pynrrd
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 the library's own abbreviation

from threedme_ros.formats import gzip_stream
from threedme_ros.volume import Volume, VolumeError
from threedme_ros.volume_io import (
    FORMATS,
    VolumeIOError,
    read_volume,
    volume_from_bytes,
    volume_to_bytes,
    write_volume,
)

OBLIQUE = np.array([[-0.8, 0.1, 0.3, 31.7], [0.2, 0.9, -0.5, -12.3], [0.1, 0.3, 2.1, 400.123], [0, 0, 0, 1]])
"""Rotated, anisotropic and a little sheared."""
LPS = np.diag([-1, -1, 1, 1])


def rigid() -> np.ndarray:
    turn, _ = np.linalg.qr(OBLIQUE[:3, :3])
    affine = np.eye(4)
    affine[:3, :3] = turn * np.sign(np.linalg.det(turn)) * (0.7, 0.9, 2.5)
    affine[:3, 3] = (-120.3, 55.5, 812.9)
    return affine


def ramp(dtype="i2", shape=(5, 4, 3)) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def nifti_bytes(voxels=None, affine=OBLIQUE, kind=nib.Nifti1Image, **fields) -> bytes:
    """A file as nibabel writes it, header fields overwritten afterwards."""
    data = bytearray(kind(ramp() if voxels is None else voxels, affine).to_bytes())
    header_class, size = (nib.Nifti1Header, 348) if kind is nib.Nifti1Image else (nib.Nifti2Header, 540)
    header = header_class(bytes(data[:size]), check=False)
    for name, value in fields.items():
        header[name] = value
    data[:size] = header.binaryblock
    return bytes(data)


def nrrd_bytes(voxels=None, drop=(), **fields) -> bytes:
    voxels = ramp() if voxels is None else voxels
    header = {
        "type": "int16",
        "dimension": "3",
        "space": "right-anterior-superior",
        "sizes": " ".join(map(str, voxels.shape)),
        "space directions": "(2,0,0) (0,3,0) (0,0,4)",
        "endian": "little",
        "encoding": "raw",
        "space origin": "(1,2,3)",
    }
    header |= {name.replace("_", " "): value for name, value in fields.items()}
    lines = [f"{name}: {value}" for name, value in header.items() if name not in drop]
    return ("NRRD0004\n" + "\n".join(lines) + "\n\n").encode() + voxels.tobytes(order="F")


# known answers from independent readers and writers


@pytest.mark.parametrize("kind", (nib.Nifti1Image, nib.Nifti2Image))
@pytest.mark.parametrize("dtype", ("u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"))
def test_reads_what_nibabel_writes(kind, dtype):
    theirs = kind(ramp(dtype), OBLIQUE, dtype=np.dtype(dtype))
    volume = volume_from_bytes(theirs.to_bytes(), "nifti", frame_id="ct")
    np.testing.assert_array_equal(volume.voxels, ramp(dtype))
    assert (volume.voxels.dtype, volume.frame_id) == (np.dtype(dtype), "ct")
    np.testing.assert_allclose(volume.affine, OBLIQUE, rtol=1e-6)


@pytest.mark.parametrize("dtype", ("u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"))
def test_nibabel_reads_what_we_write(dtype):
    written = nib.Nifti1Image.from_bytes(bytes(volume_to_bytes(Volume(ramp(dtype), OBLIQUE))))
    assert written.get_data_dtype() == np.dtype(dtype)
    np.testing.assert_array_equal(np.asanyarray(written.dataobj), ramp(dtype))
    np.testing.assert_allclose(written.affine, OBLIQUE, rtol=1e-6)
    assert written.header.get_xyzt_units()[0] == "mm"
    written.header.check_fix(error_level=10)


@pytest.mark.parametrize("suffix", (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd"))
def test_files_agree_with_simpleitk_both_ways(tmp_path, suffix):
    affine = rigid()
    write_volume(tmp_path / f"ours{suffix}", Volume(ramp(), affine))
    image = sitk.ReadImage(str(tmp_path / f"ours{suffix}"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).T, ramp())
    for index in ((0, 0, 0), (4, 3, 2)):
        expected = LPS @ affine @ (*index, 1)
        np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(index), expected[:3], atol=1e-3)
    sitk.WriteImage(image, str(tmp_path / f"theirs{suffix}"))
    volume = read_volume(tmp_path / f"theirs{suffix}")
    np.testing.assert_array_equal(volume.voxels, ramp())
    assert volume.voxels.dtype == np.int16
    np.testing.assert_allclose(volume.affine, affine, atol=1e-4)


@pytest.mark.parametrize(
    ("space", "signs"),
    [
        ("right-anterior-superior", (1, 1)),
        ("RAS", (1, 1)),
        ("left-anterior-superior", (-1, 1)),
        ("LAS", (-1, 1)),
        ("Left-Posterior-Superior", (-1, -1)),
        ("LPS", (-1, -1)),
    ],
)
def test_nrrd_spaces_tell_left_from_right(space, signs):
    volume = volume_from_bytes(nrrd_bytes(space=space), "nrrd")
    x, y = signs
    np.testing.assert_array_equal(volume.affine, [[2 * x, 0, 0, x], [0, 3 * y, 0, 2 * y], [0, 0, 4, 3], [0, 0, 0, 1]])
    np.testing.assert_array_equal(volume.voxels, ramp())


@pytest.mark.parametrize("encoding", ("raw", "gzip"))
def test_nrrd_agrees_with_pynrrd_both_ways(tmp_path, encoding):
    path = str(tmp_path / "theirs.nrrd")
    header = {"space": "left-posterior-superior", "encoding": encoding}
    header |= {"space directions": (LPS @ OBLIQUE)[:3, :3].T, "space origin": (LPS @ OBLIQUE)[:3, 3]}
    pynrrd.write(path, ramp("f4"), header)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.voxels, ramp("f4"))
    np.testing.assert_allclose(volume.affine, OBLIQUE, rtol=1e-6)

    write_volume(tmp_path / "ours.nrrd", volume)
    voxels, header = pynrrd.read(str(tmp_path / "ours.nrrd"))
    np.testing.assert_array_equal(voxels, ramp("f4"))
    np.testing.assert_array_equal(header["space directions"].T, (LPS @ volume.affine)[:3, :3])
    np.testing.assert_array_equal(header["space origin"], (LPS @ volume.affine)[:3, 3])


def test_nrrd_units_big_endian_and_an_axis_of_one():
    data = nrrd_bytes(ramp(">i2"), endian="big", space_units='"m" "m" "m"')
    volume = volume_from_bytes(data, "nrrd")
    np.testing.assert_array_equal(volume.voxels, ramp())
    assert volume.spacing_mm == pytest.approx((2000, 3000, 4000))
    fields = {"dimension": "4", "sizes": "1 5 4 3", "space_directions": "none (2,0,0) (0,3,0) (0,0,4)"}
    np.testing.assert_array_equal(volume_from_bytes(nrrd_bytes(**fields), "nrrd").voxels, ramp())


# round trips


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("order", ("F", "C", "permuted", "flipped"))
def test_every_memory_order_round_trips(format, order):
    voxels = np.random.default_rng(0).integers(-1000, 1000, (40, 35, 70), np.int16)
    voxels = {
        "F": np.asfortranarray(voxels),
        "C": voxels,
        "permuted": np.ascontiguousarray(voxels.transpose(1, 2, 0)).transpose(2, 0, 1),
        "flipped": np.asfortranarray(voxels)[::-1, :, ::-1],
    }[order]
    back = volume_from_bytes(volume_to_bytes(Volume(voxels, OBLIQUE), format), format)
    np.testing.assert_array_equal(back.voxels, voxels)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("dtype", "stored"), [(bool, "u1"), ("f2", "f4"), (">i4", "i4"), ("longdouble", "f8")])
def test_types_that_no_format_knows_are_widened(format, dtype, stored):
    voxels = (ramp() % 2).astype(dtype)
    back = volume_from_bytes(volume_to_bytes(Volume(voxels, OBLIQUE), format), format)
    np.testing.assert_array_equal(back.voxels, voxels.astype(stored))
    assert back.voxels.dtype == np.dtype(stored)


@pytest.mark.parametrize(
    "source",
    [
        ("nifti", nifti_bytes()),
        ("nifti", nifti_bytes(kind=nib.Nifti2Image)),
        ("nifti", nifti_bytes(xyzt_units=3)),
        ("nrrd", nrrd_bytes(space_origin="(0.1,-33.333333333333,812.7)")),
    ],
    ids=("sform", "NIfTI-2 in float64", "microns", "nrrd"),
)
@pytest.mark.parametrize("format", FORMATS)
def test_labels_on_a_decoded_grid_come_back_with_the_same_affine_bit_for_bit(source, format):
    image = volume_from_bytes(source[1], source[0])
    labels = image.with_voxels(np.ones(image.shape, np.uint8))
    back = volume_from_bytes(volume_to_bytes(labels, format), format)
    np.testing.assert_array_equal(back.affine, image.affine)


def test_an_affine_without_shear_is_written_as_qform_too_and_one_with_shear_is_not():
    straight = nib.Nifti1Image.from_bytes(bytes(volume_to_bytes(Volume(ramp(), rigid()))))
    np.testing.assert_allclose(straight.get_qform(), rigid(), atol=1e-3)
    assert (straight.header["qform_code"], straight.header["sform_code"]) == (1, 1)
    sheared = nib.Nifti1Image.from_bytes(bytes(volume_to_bytes(Volume(ramp(), OBLIQUE))))
    assert (sheared.header["qform_code"], sheared.header["sform_code"]) == (0, 1)
    np.testing.assert_allclose(sheared.header.get_zooms(), np.linalg.norm(OBLIQUE[:3, :3], axis=0), rtol=1e-5)


def test_a_description_is_found_by_other_readers_and_changes_no_voxel(tmp_path):
    volume = Volume(ramp(), OBLIQUE, "patient")
    text = "checkpoint=0123456789abcdef engine=torch precision=fp32 device=cpu"
    image = nib.Nifti1Image.from_bytes(bytes(volume_to_bytes(volume, "nifti", text)))
    assert image.header["descrip"].item().decode() == text
    np.testing.assert_array_equal(image.dataobj, volume.voxels)
    path = tmp_path / "labels.nrrd"
    path.write_bytes(volume_to_bytes(volume, "nrrd", text))
    voxels, header = pynrrd.read(str(path))
    assert header["content"] == text
    np.testing.assert_array_equal(voxels, volume.voxels)
    np.testing.assert_array_equal(volume_from_bytes(path.read_bytes(), "nrrd").voxels, volume.voxels)


def test_an_axis_past_32767_is_written_as_nifti_2():
    voxels = ramp("u1", (40000, 2, 1))
    data = volume_to_bytes(Volume(voxels, np.eye(4)))
    np.testing.assert_array_equal(np.asanyarray(nib.Nifti2Image.from_bytes(bytes(data)).dataobj), voxels)
    np.testing.assert_array_equal(volume_from_bytes(data, "nifti").voxels, voxels)


# fast paths


@pytest.mark.parametrize("format", ("nifti", "nrrd"))
@pytest.mark.parametrize("container", (bytes, bytearray, memoryview, lambda b: array.array("B", bytes(b))))
def test_plain_voxels_are_a_view_of_the_message(format, container):
    data = container(volume_to_bytes(Volume(ramp(), OBLIQUE), format))
    volume = volume_from_bytes(data, format)
    assert np.shares_memory(volume.voxels, np.frombuffer(data, np.uint8))
    assert volume.voxels.flags.f_contiguous and volume.voxels.flags.aligned


def test_misaligned_voxels_are_copied():
    data = nrrd_bytes(space_origin="(1,2,3) ")
    for padding in range(4):
        volume = volume_from_bytes(data.replace(b"\n\n", b"\n#" + b" " * padding + b"\n\n", 1), "nrrd")
        assert volume.voxels.flags.aligned
        np.testing.assert_array_equal(volume.voxels, ramp())


def test_encoding_takes_the_memory_of_one_file():
    voxels = np.zeros((128, 128, 100), np.uint8).T
    tracemalloc.start()
    data = volume_to_bytes(Volume(voxels, np.eye(4)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < len(data) * 1.1


# what NIfTI's fields mean


@pytest.mark.parametrize(("unit", "factor"), [("unknown", 1), ("mm", 1), ("meter", 1000), ("micron", 0.001)])
def test_spatial_units_become_mm(unit, factor):
    header = nib.Nifti1Header()
    header.set_xyzt_units(unit, "sec")
    volume = volume_from_bytes(nifti_bytes(xyzt_units=header["xyzt_units"]), "nifti")
    np.testing.assert_allclose(volume.affine[:3], OBLIQUE[:3] * factor, rtol=1e-6)


@pytest.mark.parametrize(("slope", "inter"), [(1, 0), (0, 5), (np.nan, np.nan), (0, 0)])
def test_no_scaling_keeps_integers(slope, inter):
    volume = volume_from_bytes(nifti_bytes(scl_slope=slope, scl_inter=inter), "nifti")
    assert volume.voxels.dtype == np.int16
    np.testing.assert_array_equal(volume.voxels, ramp())


@pytest.mark.parametrize("format", ("nifti", "nifti; gzip"))
def test_slope_and_intercept_give_float32(format):
    data = nifti_bytes(scl_slope=0.5, scl_inter=-1024)
    volume = volume_from_bytes(gzip.compress(data) if "gzip" in format else data, format)
    assert volume.voxels.dtype == np.float32
    np.testing.assert_array_equal(volume.voxels, ramp("f4") * 0.5 - 1024)


def test_finite_voxels_that_a_slope_would_make_infinite_are_refused_and_stored_infinities_are_not():
    with pytest.raises(VolumeError, match=r"slope 3e\+37, intercept 0, voxels as stored from 0 to 59: expected finite"):
        volume_from_bytes(nifti_bytes(scl_slope=3e37), "nifti")
    image = nib.Nifti1Image(np.array([1, -np.inf, np.nan], np.float32).reshape(3, 1, 1), OBLIQUE)
    image.header["scl_slope"], image.header["scl_inter"] = 2, 1
    voxels = volume_from_bytes(image.to_bytes(), "nifti").voxels.ravel()
    np.testing.assert_array_equal(voxels, [3, -np.inf, np.nan])


def test_big_endian_nifti():
    image = nib.Nifti1Image(ramp(">i2"), OBLIQUE, nib.Nifti1Header(endianness=">"))
    assert image.to_bytes()[:4] == b"\0\0\x01\x5c"
    volume = volume_from_bytes(image.to_bytes(), "nifti")
    np.testing.assert_array_equal(volume.voxels, ramp())
    assert volume.voxels.dtype.isnative
    np.testing.assert_allclose(volume.affine, OBLIQUE, rtol=1e-6)


def test_qform_alone_places_the_volume_and_sform_wins_over_it():
    image = nib.Nifti1Image(ramp(), None)
    image.header.set_qform(rigid(), "scanner")
    volume = volume_from_bytes(image.to_bytes(), "nifti")
    np.testing.assert_allclose(volume.affine, rigid(), rtol=1e-5, atol=1e-5)
    labels = volume_from_bytes(volume_to_bytes(volume), "nifti")
    np.testing.assert_array_equal(labels.affine, volume.affine)
    image.header.set_sform(OBLIQUE, "scanner")
    np.testing.assert_allclose(volume_from_bytes(image.to_bytes(), "nifti").affine, OBLIQUE, rtol=1e-6)


def test_trailing_dimensions_of_one_are_dropped_and_extensions_skipped():
    image = nib.Nifti1Image(ramp().reshape(5, 4, 3, 1, 1), OBLIQUE)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 100))
    assert volume_from_bytes(image.to_bytes(), "nifti").shape == (5, 4, 3)
    np.testing.assert_array_equal(volume_from_bytes(image.to_bytes(), "nifti").voxels, ramp())


def test_gzip_of_several_members_is_one_file():
    data = nifti_bytes()
    parts = [gzip.compress(data[i : i + 100]) for i in range(0, len(data), 100)]
    volume = volume_from_bytes(b"".join([*parts, gzip.compress(b"")]), "nifti; gzip")
    np.testing.assert_array_equal(volume.voxels, ramp())


# bad input: refused with the reason


BAD_NIFTI = [
    (b"", "truncated: 0 bytes, a NIfTI header takes 348"),
    (nifti_bytes()[:200], "truncated: 200 bytes"),
    (nifti_bytes(kind=nib.Nifti2Image)[:400], "truncated: 400 bytes, a NIfTI-2 header takes 540"),
    (nifti_bytes()[:-1], "truncated: header claims 120 bytes of voxels, 119 are there"),
    (nifti_bytes() + b"\0", "trailing data: 1 bytes after the 120"),
    (b"GIF89a" * 100, "not NIfTI: header size"),
    (nifti_bytes(magic=b"ni1"), "a header without its voxels"),
    (nifti_bytes(magic=b""), "NIfTI magic"),
    (nifti_bytes(dim=[3, 30000, 30000, 30000, 1, 1, 1, 1]), "too many voxels"),
    (nifti_bytes(dim=[3, 500, 500, 400, 1, 1, 1, 1]), "truncated: header claims 200000000 bytes"),
    (nifti_bytes(dim=[3, -5, 4, 3, 1, 1, 1, 1]), "expected at least one voxel along each axis"),
    (nifti_bytes(dim=[3, 5, 0, 3, 1, 1, 1, 1]), "expected at least one voxel along each axis"),
    (nifti_bytes(dim=[4, 5, 4, 1, 3, 1, 1, 1]), r"4-D image of \(5, 4, 1, 3\): expected 3-D"),
    (nifti_bytes(dim=[2, 5, 12, 1, 1, 1, 1, 1]), "2-D image"),
    (nifti_bytes(dim=[0, 5, 4, 3, 1, 1, 1, 1]), "0 dimensions"),
    (nifti_bytes(dim=[8, 5, 4, 3, 1, 1, 1, 1]), "8 dimensions"),
    (nifti_bytes(datatype=128, bitpix=24), r"datatype 128 \(RGB\): expected real scalars"),
    (nifti_bytes(datatype=2304, bitpix=32), r"datatype 2304 \(RGBA\)"),
    (nifti_bytes(datatype=32, bitpix=64), r"datatype 32 \(complex\)"),
    (nifti_bytes(datatype=1, bitpix=1), r"datatype 1 \(1-bit\)"),
    (nifti_bytes(datatype=77), r"datatype 77 \(unknown\)"),
    (nifti_bytes(bitpix=8), "bitpix 8 for datatype 4: expected 16"),
    (nifti_bytes(vox_offset=0), "vox_offset 0.0"),
    (nifti_bytes(vox_offset=np.nan), "vox_offset nan"),
    (nifti_bytes(vox_offset=352.5), "vox_offset 352.5"),
    (nifti_bytes(vox_offset=1e30), r"vox_offset 1\.0"),
    (nifti_bytes(scl_slope=np.inf), "scl_slope inf"),
    (nifti_bytes(scl_slope=2, scl_inter=np.nan), "scl_inter nan: expected finite"),
    (nifti_bytes(kind=nib.Nifti2Image, scl_slope=1e300), r"scl_slope 1e\+300, scl_inter 0: expected finite"),
    (nifti_bytes(kind=nib.Nifti2Image, scl_slope=1e-300), "scl_slope 1e-300, scl_inter 0: .* the slope not 0"),
    (nifti_bytes(kind=nib.Nifti2Image, scl_slope=2, scl_inter=-1e39), r"scl_inter -1e\+39: expected finite"),
    (nifti_bytes(xyzt_units=5), "spatial unit code 5"),
    (nifti_bytes(sform_code=0), "no geometry: sform_code and qform_code are both 0"),
    (nifti_bytes(srow_x=[np.nan, 0, 0, 0]), "expected finite numbers"),
    (nifti_bytes(srow_x=[np.inf, 0, 0, 0]), "expected finite numbers"),
    (nifti_bytes(srow_x=[0, 0, 0, 0]), "singular affine"),
    (nifti_bytes(srow_x=[1, 0, 0, 0], srow_y=[1, 0, 0, 0]), "singular affine"),
    (nifti_bytes(sform_code=0, qform_code=1, quatern_b=3.0), "qform is no rotation"),
    (nifti_bytes(sform_code=0, qform_code=1, pixdim=[1, -1, 1, 1, 1, 1, 1, 1]), "qform is no rotation"),
    (nifti_bytes(sform_code=0, qform_code=1, qoffset_x=np.nan), "expected finite numbers"),
    (nifti_bytes(kind=nib.Nifti2Image, dim=[3, 2**62, 2**62, 2**62, 1, 1, 1, 1]), "too many voxels"),
    (nifti_bytes(kind=nib.Nifti2Image, srow_x=[1e300, 0, 0, 0]), "expected finite numbers"),
]


@pytest.mark.parametrize("format", ("nifti", "nifti; gzip"))
@pytest.mark.parametrize(("data", "reason"), BAD_NIFTI, ids=[reason for _, reason in BAD_NIFTI])
def test_bad_nifti_is_refused_with_the_reason(data, reason, format):
    if format == "nifti; gzip":
        data = gzip.compress(data)
        reason = reason.split(":")[0] if reason.startswith(("truncated", "trailing")) else reason  # other figures
    with pytest.raises(VolumeError, match=reason) as caught:
        volume_from_bytes(data, format)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not gzip"),
        (nifti_bytes(), "not gzip"),
        (gzip.compress(nifti_bytes())[:-1], "truncated"),
        (gzip.compress(nifti_bytes())[:-9], "truncated"),
        (gzip.compress(nifti_bytes()) + b"rest", "trailing data: 4 bytes after the gzip stream"),
        (gzip.compress(nifti_bytes()) + gzip.compress(b"more"), "expands past the size the header claims"),
        (gzip.compress(nifti_bytes())[:-8] + bytes(8), "damaged gzip"),
        (gzip.compress(nifti_bytes())[:10] + b"\xff" * 40, "damaged gzip"),
        (gzip.compress(gzip.compress(nifti_bytes())), "truncated|not NIfTI"),
    ],
)
def test_bad_gzip_is_refused_with_the_reason(data, reason):
    with pytest.raises(VolumeIOError, match=reason):
        volume_from_bytes(data, "nifti; gzip")


def test_a_gzip_bomb_is_cut_off_at_the_size_its_header_claims():
    bomb = gzip.compress(nifti_bytes() + bytes(1 << 26))
    assert len(bomb) < 1 << 17
    tracemalloc.start()
    with pytest.raises(VolumeIOError, match="expands past the size the header claims"):
        volume_from_bytes(bomb, "nifti; gzip")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 22


def test_a_claim_no_gzip_can_hold_is_refused_before_memory_is_taken():
    data = gzip.compress(nifti_bytes(dim=[3, 512, 512, 1024, 1, 1, 1, 1]))
    tracemalloc.start()
    with pytest.raises(VolumeIOError, match="gzipped bytes cannot hold them"):
        volume_from_bytes(data, "nifti; gzip")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 22


def test_gzip_of_endless_empty_members_is_refused(monkeypatch):
    monkeypatch.setattr(gzip_stream, "MAX_MEMBERS", 50)
    with pytest.raises(VolumeIOError, match="more than 50 members"):
        volume_from_bytes(gzip.compress(b"") * 1000, "nifti; gzip")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not NRRD"),
        (b"NRRD0009\n\n", "not NRRD"),
        (b"NRRD0004\ntype: int16\n", "header does not end"),
        (b"NRRD0004\n" + b"# x\n" * 100000, "header does not end within 65536 bytes"),
        (nrrd_bytes()[:-1], "truncated: header claims 120 bytes of voxels, 119 are there"),
        (nrrd_bytes() + b"\0", "trailing data: 1 bytes"),
        (nrrd_bytes(data_file="/etc/passwd"), "detached data file '/etc/passwd': expected the voxels attached"),
        (nrrd_bytes(datafile="LIST"), "detached data file"),
        (nrrd_bytes(**{"DATA FILE": "x.raw"}), "detached data file"),
        (nrrd_bytes(encoding="hex"), "encoding 'hex': expected raw or gzip"),
        (nrrd_bytes(encoding="bzip2"), "encoding 'bzip2'"),
        (nrrd_bytes(encoding="gzip"), "not gzip"),
        (nrrd_bytes(type="block"), "type 'block': expected real scalars"),
        (nrrd_bytes(sizes="5 4 -3"), "at least one voxel"),
        (nrrd_bytes(sizes="5 4 x"), "sizes '5 4 x': expected numbers"),
        (nrrd_bytes(sizes="5 4"), "dimension '3' with 2 sizes"),
        (nrrd_bytes(sizes="99999 99999 99999"), "too many voxels"),
        (nrrd_bytes(dimension="4", sizes="3 5 4 1", space_directions="none (2,0,0) (0,3,0) (0,0,4)"), "4-D image"),
        (nrrd_bytes(drop=["space directions"]), "without `space directions`"),
        (nrrd_bytes(drop=["space origin"]), "without `space origin`"),
        (nrrd_bytes(drop=["space"]), "space '': expected RAS, LAS or LPS"),
        (nrrd_bytes(space="scanner-xyz"), "to tell left from right"),
        (nrrd_bytes(drop=["endian"]), "endian '': expected little or big"),
        (nrrd_bytes(space_directions="none none none"), "0 space directions other than none"),
        (nrrd_bytes(space_directions="(1,0,0) (0,1,0)"), "2 space directions for 3 axes"),
        (nrrd_bytes(space_directions="(1,0,0) (0,1,0) (0,0)"), r"'\(0,0\)': expected three numbers"),
        (nrrd_bytes(space_directions="1 0 0 0 1 0"), r"expected vectors \(x,y,z\)"),
        (nrrd_bytes(space_directions="(nan,0,0) (0,1,0) (0,0,1)"), "expected finite"),
        (nrrd_bytes(space_directions="(1,0,0) (1,0,0) (0,0,1)"), "singular affine"),
        (nrrd_bytes(space_origin="none"), "space origin 'none'"),
        (nrrd_bytes(space_units='"in" "in" "in"'), "space units"),
        (nrrd_bytes(byte_skip="-1"), "byte skip '-1': expected 0"),
        (nrrd_bytes(line_skip="2"), "line skip '2': expected 0"),
        (nrrd_bytes().replace(b"dimension: 3", b"type: int8"), "each field once"),
        (nrrd_bytes().replace(b"dimension: 3", b"no colon"), "expected `field: value`"),
    ],
)
def test_bad_nrrd_is_refused_with_the_reason(data, reason):
    with pytest.raises(VolumeError, match=reason) as caught:
        volume_from_bytes(data, "nrrd")
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("origin", ("(inf,0,0)", "(1e308,0,0)", "(nan,-inf,1)"))
def test_nrrd_numbers_past_all_places_are_refused_without_a_warning(origin):
    with pytest.raises(VolumeError, match="expected finite numbers"):
        volume_from_bytes(nrrd_bytes(space_origin=origin, space_units='"m"'), "nrrd")


def test_a_nrrd_size_too_long_to_print_is_refused():
    with pytest.raises(VolumeIOError, match="more than 63 bits"):
        volume_from_bytes(nrrd_bytes(sizes=" ".join(["9" * 1500] * 3)), "nrrd")


def test_gzip_announced_as_plain_names_the_format_to_use():
    with pytest.raises(VolumeIOError, match="expected format 'nifti; gzip'"):
        volume_from_bytes(gzip.compress(nifti_bytes()), "nifti")


@pytest.mark.parametrize("format", ("jpeg", "", "nifti;gzip", "NIFTI"))
def test_unknown_formats_are_refused(format):
    with pytest.raises(VolumeIOError, match="expected one of"):
        volume_from_bytes(nifti_bytes(), format)
    with pytest.raises(VolumeIOError, match="expected one of"):
        volume_to_bytes(Volume(ramp(), np.eye(4)), format)


@pytest.mark.parametrize("format", FORMATS)
def test_max_voxels_is_the_limit(format):
    data = volume_to_bytes(Volume(ramp(), OBLIQUE), format)
    assert volume_from_bytes(data, format, max_voxels=60).shape == (5, 4, 3)
    with pytest.raises(VolumeIOError, match="is 60, the limit is 59"):
        volume_from_bytes(data, format, max_voxels=59)


@pytest.mark.parametrize("format", FORMATS)
def test_no_damage_raises_anything_but_a_volume_error(format):
    """2,000 files with cut tails and flipped header bits: each decodes or is refused, in bounded memory."""
    good = [bytes(volume_to_bytes(Volume(ramp(), affine), format)) for affine in (OBLIQUE, rigid())]
    if format == "nifti":
        good.append(nifti_bytes(kind=nib.Nifti2Image))
        good.append(volume_to_bytes(volume_from_bytes(nifti_bytes(affine=rigid()), "nifti")))
        good[-1][254:256] = b"\0\0"  # sform code: the qform is read
    random = np.random.default_rng(20260)
    refused = 0
    tracemalloc.start()
    for _ in range(2000):
        data = bytearray(good[random.integers(len(good))])
        if format == "nifti; gzip" and random.random() < 0.7:  # damage inside, the wrapping intact
            inside = bytearray(gzip.decompress(data))
            damage(inside, random)
            data = bytearray(zlib.compress(inside, 1, wbits=31))
        else:
            damage(data, random)
        try:
            volume_from_bytes(data, format, max_voxels=1 << 20)
        except VolumeError as error:
            refused += 1
            assert "\n" not in str(error)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refused > 500
    assert peak < 1 << 25


def damage(data: bytearray, random: np.random.Generator) -> None:
    if random.random() < 0.2:
        del data[random.integers(len(data)) :]
    for _ in range(random.integers(1, 6)):
        if data:
            data[random.integers(min(len(data), 360))] ^= 1 << random.integers(8)


# files


@pytest.mark.parametrize("name", ("volume.nhdr", "volume.img", "volume"))
def test_unknown_endings_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(VolumeIOError, match="unknown kind of file"):
        read_volume(tmp_path / name)
    with pytest.raises(VolumeIOError, match="unknown kind of file"):
        write_volume(tmp_path / name, Volume(ramp(), np.eye(4)))


def test_a_missing_or_damaged_file_is_a_volume_error(tmp_path):
    with pytest.raises(VolumeIOError, match="No such file"):
        read_volume(tmp_path / "none.nii.gz")
    for suffix in (".nii", ".nii.gz", ".nrrd", ".mha"):
        (tmp_path / f"bad{suffix}").write_bytes(b"no volume" * 100)
        with pytest.raises(VolumeIOError, match=f"bad{suffix}: not "):
            read_volume(tmp_path / f"bad{suffix}")


def test_a_file_past_the_limit_is_not_opened(tmp_path):
    with (tmp_path / "huge.nii").open("wb") as file:
        file.truncate(1 << 34)  # sparse
    with pytest.raises(VolumeIOError, match="expected at most"):
        read_volume(tmp_path / "huge.nii")


def test_meta_images_of_colours_or_too_many_voxels_are_refused(tmp_path):
    path = tmp_path / "image.mha"
    sitk.WriteImage(sitk.Image([4, 4, 4], sitk.sitkVectorUInt8, 3), str(path))
    with pytest.raises(VolumeIOError, match="3 values a voxel"):
        read_volume(path)
    sitk.WriteImage(sitk.Image([4, 4, 4], sitk.sitkUInt8), str(path))
    with pytest.raises(VolumeIOError, match="is 64, the limit is 63"):
        read_volume(path, max_voxels=63)
    sitk.WriteImage(sitk.Image([4, 4], sitk.sitkUInt8), str(path))
    with pytest.raises(VolumeIOError, match="2-D image"):
        read_volume(path)


def test_suffixes_are_read_in_any_case(tmp_path):
    write_volume(tmp_path / "A.NII.GZ", Volume(ramp(), OBLIQUE))
    assert read_volume(tmp_path / "A.NII.GZ").shape == (5, 4, 3)
