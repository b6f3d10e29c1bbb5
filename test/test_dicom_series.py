import io
import os
import shutil
import struct
import tracemalloc

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813 the library's own abbreviation
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, generate_uid

from threedme_ros.dicom_series import DicomSeriesError, read_dicom_series
from threedme_ros.volume import VolumeError
from threedme_ros.volume_io import read_volume

SECRET = "Doe^Jane"
SERIES = generate_uid()
COLUMNS, ROWS, SLICES = 6, 5, 4


def write_slice(path, k, step=(0.0, 0.0, 2.5), orientation=(1, 0, 0, 0, 1, 0), **tags):
    """Slice ``k``: pixel values 100 k + 10 row + column, rows 0.8 mm and columns 0.5 mm apart."""
    data = pydicom.Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = tags.pop("syntax", ExplicitVRLittleEndian)
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.PatientName, data.PatientID = SECRET, SECRET
    data.SeriesInstanceUID, data.Modality = SERIES, "CT"
    data.InstanceNumber = 99 - k
    data.ImagePositionPatient = [float(v) for v in np.array([-10.0, 20.0, 30.0]) + k * np.array(step)]
    data.ImageOrientationPatient = list(orientation)
    data.PixelSpacing = [0.8, 0.5]
    data.Rows, data.Columns, data.SamplesPerPixel, data.PhotometricInterpretation = ROWS, COLUMNS, 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    data.RescaleSlope, data.RescaleIntercept = 1, -1024
    row, column = np.mgrid[:ROWS, :COLUMNS]
    data.PixelData = (100 * k + 10 * row + column).astype("<i2").tobytes()
    for name, value in tags.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)


@pytest.fixture
def folder(tmp_path):
    """A good series, written in an order that is neither by position nor by instance number."""
    for k in (2, 0, 3, 1):
        write_slice(tmp_path / f"{(k * 7) % 4}.dcm", k)
    return tmp_path


def test_slices_are_sorted_by_position_and_rescaled_to_hu(folder):
    volume = read_dicom_series(folder, frame_id="ct")
    i, j, k = np.mgrid[:COLUMNS, :ROWS, :SLICES]
    np.testing.assert_array_equal(volume.voxels, 100 * k + 10 * j + i - 1024)
    assert (volume.voxels.dtype, volume.frame_id) == (np.int16, "ct")
    # LPS (-10, 20, 30) is RAS (10, -20, 30); columns run to the left, rows to the back, slices up
    expected = [[-0.5, 0, 0, 10], [0, -0.8, 0, -20], [0, 0, 2.5, 30], [0, 0, 0, 1]]
    np.testing.assert_allclose(volume.affine, expected, rtol=1e-6)
    assert volume.grid.orientation == "LPS"


def test_agrees_with_simpleitk_on_an_oblique_series(tmp_path):
    turn = np.radians(30)
    along, down = (np.cos(turn), 0, np.sin(turn)), (0, 1, 0)
    normal = np.cross(along, down)
    for k in range(SLICES):
        tags = {"RescaleSlope": "0.5"}
        write_slice(tmp_path / f"{k}.dcm", k, 2.5 * normal, [round(float(v), 8) for v in (*along, *down)], **tags)
    volume = read_volume(tmp_path)
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path))
    theirs = sitk.ReadImage(names)
    np.testing.assert_array_equal(volume.voxels, sitk.GetArrayFromImage(theirs).T)
    assert volume.voxels.dtype == np.float32
    for index in ((0, 0, 0), (COLUMNS - 1, ROWS - 1, SLICES - 1)):
        expected = np.array(theirs.TransformIndexToPhysicalPoint(index)) * (-1, -1, 1)
        np.testing.assert_allclose(volume.grid.to_mm([index])[0], expected, atol=1e-4)


def test_slope_and_intercept_may_differ_from_slice_to_slice(tmp_path):
    for k in range(SLICES):
        write_slice(tmp_path / f"{k}.dcm", k, RescaleSlope=str(1 + k * 0.25), RescaleIntercept=str(-k))
    volume = read_dicom_series(tmp_path)
    i, j, k = np.mgrid[:COLUMNS, :ROWS, :SLICES]
    np.testing.assert_allclose(volume.voxels, (100 * k + 10 * j + i) * (1 + k * 0.25) - k)


def test_whole_numbers_too_large_for_int16_do_not_wrap(tmp_path):
    for k in range(SLICES):
        write_slice(tmp_path / f"{k}.dcm", k, RescaleSlope="1000", RescaleIntercept="0")
    assert read_dicom_series(tmp_path).voxels.max() == 1000 * (300 + 40 + 5)


def test_other_files_in_the_folder_are_left_alone_and_a_list_of_paths_will_do(folder):
    (folder / "README.txt").write_text("viewer software")
    (folder / ".hidden").write_bytes(b"\0")
    (folder / "DICOMDIR").write_bytes(b"\0" * 200)
    assert read_dicom_series(folder).shape == (COLUMNS, ROWS, SLICES)
    assert read_dicom_series(list(folder.glob("*.dcm"))).shape == (COLUMNS, ROWS, SLICES)


def test_an_anonymised_series_without_uid_is_one_series(tmp_path):
    for k in range(SLICES):
        write_slice(tmp_path / f"{k}.dcm", k, SeriesInstanceUID=None)
    assert read_dicom_series(tmp_path).shape == (COLUMNS, ROWS, SLICES)


def test_positions_rounded_by_the_scanner_are_an_even_stack(tmp_path):
    for k, jitter in enumerate((0, 0.04, -0.05, 0.02)):
        write_slice(tmp_path / f"{k}.dcm", k, ImagePositionPatient=[0, 0, 2.5 * k + jitter])
    assert read_dicom_series(tmp_path).spacing_mm[2] == pytest.approx((7.5 + 0.02) / 3, abs=1e-5)


BAD = [
    ({3: None}, {"SeriesInstanceUID": generate_uid()}, "2 DICOM series"),
    ({3: None}, {"ImagePositionPatient": [-10, 20, 32.5]}, "1 DICOM slices at the same position"),
    ({3: None}, {"ImagePositionPatient": [-10, 20, 40]}, r"uneven DICOM slice gaps, 2.5 to 5 mm \(a missing slice\?\)"),
    ({3: None}, {"ImagePositionPatient": [-10, 20, 37.8]}, "even stack within 0.1 mm"),
    ({3: None}, {"ImageOrientationPatient": [0.8, 0.6, 0, -0.6, 0.8, 0]}, "different ImageOrientationPatient"),
    ({3: None}, {"PixelSpacing": [0.8, 0.6]}, r"different PixelSpacing \(mm\), by up to 0.1"),
    ({3: None}, {"Rows": 3, "PixelData": bytes(36)}, r"different sizes \[\(6, 3\), \(6, 5\)\]"),
    ({3: None}, {"ImagePositionPatient": None}, "no ImagePositionPatient"),
    ({3: None}, {"PixelSpacing": None}, "no PixelSpacing"),
    ({3: None}, {"ImagePositionPatient": [0, 0]}, "expected 3 finite numbers"),
    ({3: None}, {"NumberOfFrames": 2, "PixelData": bytes(120)}, "file of 2 frames"),
    ({3: None}, {"PixelData": bytes(20)}, "pixels cannot be decoded"),
    ({3: None}, {"PixelData": None}, "pixels cannot be decoded"),
    (
        {3: None},
        {"PixelData": bytes(70_000)},
        "70000 bytes of PixelData for 5 rows of 6 columns, 16 bits .* 60 to 65596",
    ),
    ({3: None}, {"BitsAllocated": 12}, r"pixels of 12 bits \(BitsAllocated\): expected one of"),
    ({3: None}, {"RescaleSlope": "1e300"}, r"slope 1e\+300 and intercept -1024 of 16-bit pixels"),
    (
        {3: None},
        {"RescaleSlope": "1e35"},
        r"slope 1e\+35 and .* expected a slope other than 0, and values that float32",
    ),
    ({3: None}, {"RescaleSlope": "0"}, "slope 0 and intercept -1024"),
    ({3: None}, {"RescaleSlope": "1e-300"}, "slope 1e-300 and"),
    ({3: None}, {"RescaleIntercept": "-1e39"}, r"slope 1 and intercept -1e\+39"),
]


@pytest.mark.parametrize(("which", "tags", "reason"), BAD, ids=[reason for *_, reason in BAD])
def test_what_does_not_stack_is_refused_without_naming_the_patient(tmp_path, which, tags, reason):
    for k in range(SLICES):
        write_slice(tmp_path / f"{SECRET}{k}.dcm", k, **(tags if k in which else {}))
    with pytest.raises(VolumeError, match=reason) as caught:
        read_volume(tmp_path)
    said = str(caught.value)
    assert SECRET not in said and SERIES not in said and "\n" not in said


ALL_BAD = [
    ({"step": (0, 0.6, 2.5)}, r"gantry tilt 13\.5 degrees"),
    ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3, "PlanarConfiguration": 0}, "DICOM pixels of RGB"),
    ({"PhotometricInterpretation": "MONOCHROME1"}, "expected MONOCHROME2"),
    ({"orientation": (1, 0, 0, 0.5, 0.5, 0)}, "two orthogonal unit vectors"),
    ({"orientation": (1, 0, 0, 1, 0, 0)}, "two orthogonal unit vectors"),
    ({"PixelSpacing": [0, 0.5]}, "expected positive mm"),
    ({"step": (0, 0, 0)}, "3 DICOM slices at the same position"),
]


@pytest.mark.parametrize(("tags", "reason"), ALL_BAD, ids=[reason for _, reason in ALL_BAD])
def test_a_series_that_is_no_straight_grid_is_refused(tmp_path, tags, reason):
    for k in range(SLICES):
        write_slice(tmp_path / f"{k}.dcm", k, **tags)
    with pytest.raises(DicomSeriesError, match=reason):
        read_dicom_series(tmp_path)


def test_a_compressed_series_without_a_decoder_names_the_syntax(tmp_path, monkeypatch):
    monkeypatch.setattr("threedme_ros.dicom_series._decodable", lambda syntax: False)
    for k in range(SLICES):
        write_slice(tmp_path / f"{k}.dcm", k)
        data = pydicom.dcmread(tmp_path / f"{k}.dcm")
        data.file_meta.TransferSyntaxUID = JPEGLSLossless
        data.PixelData = encapsulate([b"\xff\xd8 no decoder will see this"])
        data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
        data.save_as(tmp_path / f"{k}.dcm")
    with pytest.raises(DicomSeriesError, match="compressed as JPEG-LS Lossless Image Compression, which no installed"):
        read_dicom_series(tmp_path)


def test_a_compressed_frame_larger_than_the_header_says_takes_no_memory(folder):
    """Some hundred bytes of JPEG 2000 that become 2,000 x 2,000 pixels."""
    picture = io.BytesIO()
    Image.new("L", (2000, 2000), 7).save(picture, "JPEG2000", no_jp2=True)
    eight = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0}
    for k in range(SLICES):
        write_slice(folder / f"{k}.dcm", k, **eight)
        data = pydicom.dcmread(folder / f"{k}.dcm")
        data.file_meta.TransferSyntaxUID = JPEG2000Lossless
        data.PixelData = encapsulate([picture.getvalue()])
        data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
        data.save_as(folder / f"{k}.dcm")
    with pytest.raises(
        DicomSeriesError, match="frame of 2000 columns, 2000 rows and 1 components: expected 6 columns, 5"
    ):
        read_dicom_series(folder)


def test_pixels_past_what_the_header_says_are_not_read(folder):
    """A sparse file of 200 MB is nothing on disk."""
    path = folder / "0.dcm"
    data = path.read_bytes()
    path.write_bytes(data[:-64] + struct.pack("<I", 200_000_000))
    os.truncate(path, len(data) + 200_000_000)
    tracemalloc.start()
    with pytest.raises(DicomSeriesError, match="200000000 bytes of PixelData for 5 rows of 6 columns"):
        read_dicom_series(folder)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 23


def test_a_single_slice_and_an_empty_folder_are_refused(tmp_path, folder):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DicomSeriesError, match="0 DICOM images in 0 files"):
        read_volume(empty)
    with pytest.raises(DicomSeriesError, match="1 DICOM images in 1 files: expected 2 or more, for a slice spacing"):
        read_dicom_series([folder / "0.dcm"])


def test_max_voxels_is_the_limit(folder):
    with pytest.raises(VolumeError, match="is 120, the limit is 119"):
        read_dicom_series(folder, max_voxels=119)


def test_damaged_headers_raise_only_volume_errors_and_warn_of_no_patient(folder, recwarn):
    random = np.random.default_rng(3)
    good = (folder / "0.dcm").read_bytes()
    for _ in range(150):
        data = bytearray(good)
        for _ in range(4):
            data[random.integers(128, len(data))] ^= 1 << random.integers(8)
        if random.random() < 0.3:
            del data[random.integers(132, len(data)) :]
        (folder / "0.dcm").write_bytes(data)
        try:
            read_dicom_series(folder)
        except VolumeError as error:
            assert "\n" not in str(error) and "Doe" not in str(error)
    assert not recwarn.list


def test_the_sample_series_agrees_with_simpleitk(samples, tmp_path):
    """JPEG 2000, 512 x 512 x 20; six slices of it, to be quick."""
    files = sorted((samples / "example_ct_dicom").iterdir())[:6]
    for file in files:
        shutil.copy(file, tmp_path)
    volume = read_volume(tmp_path)
    theirs = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path)))
    np.testing.assert_array_equal(volume.voxels, sitk.GetArrayFromImage(theirs).T)
    np.testing.assert_allclose(volume.grid.to_mm([[0, 0, 0]])[0], np.array(theirs.GetOrigin()) * (-1, -1, 1), atol=1e-4)
    np.testing.assert_allclose(volume.spacing_mm, theirs.GetSpacing(), rtol=1e-5)


def test_a_length_that_claims_4_gb_takes_no_memory(folder):
    path = folder / "0.dcm"
    data = path.read_bytes()
    at = data.index(b"\x28\x00\x02\x00US")
    path.write_bytes(data[:at] + b"\x28\x00\x02\x00UT\0\0\xfe\xff\xff\xff" + data[at:])
    tracemalloc.start()
    with pytest.raises(DicomSeriesError, match="SamplesPerPixel of type UT: expected US"):
        read_dicom_series(folder)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 23


def test_a_slice_that_is_cut_off_before_its_size_is_not_left_out_silently(folder):
    path = folder / "0.dcm"
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"\x28\x00\x02\x00US")])
    with pytest.raises(DicomSeriesError, match="DICOM file 1 of 4: an image without Rows: is it cut off"):
        read_dicom_series(folder)


def test_pydicoms_log_lines_which_may_quote_the_patient_are_not_shown(folder, capfd):
    path = folder / "0.dcm"
    data = path.read_bytes()
    at = data.index(b"\x28\x00\x02\x00US")
    path.write_bytes(data[:at] + b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff")
    with pytest.raises(DicomSeriesError):
        read_dicom_series(folder)
    out, err = capfd.readouterr()
    assert out == err == ""
