"""Slices made here, with a planted patient; what is assembled is compared with the same slices read from files."""

import io
import tracemalloc

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from threedme_ros.dicom_series import DicomSeriesError, read_dicom_series
from threedme_ros.dicom_store import SLICE_BYTES, SeriesStore, StoreSettings, series_tag

SECRET = "ZZTOPSECRET^PATIENT"


def new_uid() -> str:
    return generate_uid()[:50].rstrip(".")  # room for ".<slice>" within the 64 characters of a UID


def slice_bytes(series: str, index: int, count: int | None = None, **changes) -> bytes:
    """One 6 x 5 slice of a series with 2 mm steps, as a DICOM file in memory."""
    data = pydicom.Dataset()
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, f"{series}.{index}"
    data.SeriesInstanceUID, data.PatientName, data.PatientID = series, SECRET, SECRET
    data.Rows, data.Columns, data.PixelSpacing = 5, 6, [0.7, 0.9]
    data.ImageOrientationPatient, data.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-10, -20, 2.0 * index]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    data.RescaleSlope, data.RescaleIntercept = 1, -1024
    data.PixelData = (np.arange(30, dtype="<i2") + 100 * index).tobytes()
    if count is not None:
        data.ImagesInAcquisition = count
    for name, value in changes.items():
        setattr(data, name, value)
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = CTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    out = io.BytesIO()
    data.save_as(out, enforce_file_format=True)
    return out.getvalue()


@pytest.fixture
def series():
    return new_uid()


def fill(store, series, indices, *, association="a", now_s=0.0, **changes):
    for index in indices:
        store.add(slice_bytes(series, index, **changes), f"{series}.{index}", association, now_s)


def volume(closed):
    return closed.volume(frame_id="patient", max_voxels=10_000)


def test_whole_when_the_one_association_ends_and_equal_to_the_files(series, tmp_path):
    store = SeriesStore(StoreSettings())
    fill(store, series, [3, 0, 2, 1])
    assert store.due(0.0) == []
    store.ended("a", orderly=True)
    (closed,) = store.due(0.0)
    for index in range(4):
        (tmp_path / f"{index}.dcm").write_bytes(slice_bytes(series, index))
    expected, found = read_dicom_series(tmp_path), volume(closed)
    np.testing.assert_array_equal(found.voxels, expected.voxels)
    np.testing.assert_array_equal(found.affine, expected.affine)
    assert found.voxels.dtype == expected.voxels.dtype == np.int16
    assert store.due(100.0) == [] and closed.tag == series_tag(series)


def test_whole_as_soon_as_the_announced_count_is_there(series):
    store = SeriesStore(StoreSettings())
    fill(store, series, range(3), count=4)
    store.ended("a", orderly=True)
    assert store.due(0.0) == []
    fill(store, series, [3], association="b", count=4)
    assert volume(store.due(0.0)[0]).shape == (6, 5, 4)


def test_fewer_than_announced_are_refused_once_quiet(series):
    store = SeriesStore(StoreSettings(quiet_s=5.0))
    fill(store, series, range(3), count=20)
    assert store.due(4.9) == []
    with pytest.raises(DicomSeriesError, match="3 of the 20 slices that the sender announced"):
        volume(store.due(5.0)[0])


def test_a_count_nobody_should_believe_can_be_ignored(series):
    store = SeriesStore(StoreSettings(use_count=False))
    fill(store, series, range(3), count=20)
    store.ended("a", orderly=True)
    assert volume(store.due(0.0)[0]).shape == (6, 5, 3)


def test_an_association_a_slice_is_whole_when_quiet(series):
    store = SeriesStore(StoreSettings(quiet_s=5.0))
    for index in range(3):
        fill(store, series, [index], association=index, now_s=float(index))
        store.ended(index, orderly=True)
        assert store.due(float(index)) == []
    assert store.due(6.9) == []
    assert volume(store.due(7.0)[0]).shape == (6, 5, 3)


def test_broken_off_is_refused_unless_a_second_try_brings_the_rest(series):
    store = SeriesStore(StoreSettings(quiet_s=5.0))
    fill(store, series, range(3))
    store.ended("a", orderly=False)
    with pytest.raises(DicomSeriesError, match="the sender broke off after 3 slices"):
        volume(store.due(5.0)[0])
    fill(store, series, range(3), now_s=10.0)
    store.ended("a", orderly=False)
    fill(store, series, range(5), association="b", now_s=11.0)  # all of it again: no slice is there twice
    store.ended("b", orderly=True)
    assert volume(store.due(16.0)[0]).shape == (6, 5, 5)


def test_interleaved_series_stay_apart(series):
    other = new_uid()
    store = SeriesStore(StoreSettings())
    for index in range(4):
        fill(store, series, [index])
        fill(store, other, [index], RescaleIntercept=0)
    store.ended("a", orderly=True)
    found = {closed.tag: volume(closed) for closed in store.due(0.0)}
    assert found[series_tag(series)].voxels[0, 0, 0] == -1024 and found[series_tag(other)].voxels[0, 0, 0] == 0


@pytest.mark.parametrize(
    ("indices", "changes", "reason"),
    [
        ([0, 1, 3], {}, "a missing slice"),
        ([0], {}, "expected 2 or more"),
        ([0, 1], {"NumberOfFrames": 3}, "frames"),
        ([0, 1], {"PhotometricInterpretation": "RGB"}, "MONOCHROME2"),
        ([0, 1], {"ImagePositionPatient": None}, "ImagePositionPatient"),
        ([0, 1], {"Rows": 50}, "cannot be decoded"),
        ([0, 1], {"Rows": 500}, "too many voxels"),
    ],
)
def test_what_does_not_stack_is_refused_with_the_reason(series, indices, changes, reason):
    store = SeriesStore(StoreSettings(quiet_s=1.0))
    fill(store, series, indices, **changes)
    with pytest.raises(DicomSeriesError, match=reason) if reason != "too many voxels" else pytest.raises(ValueError):
        volume(store.due(1.0)[0])


def test_memory_is_bounded_and_a_series_too_large_is_given_up_whole(series):
    one = 60 + SLICE_BYTES  # 30 pixels of 16 bits
    store = SeriesStore(StoreSettings(max_bytes=3 * one, quiet_s=5.0))
    fill(store, series, range(3))
    assert store.nbytes == 3 * one
    fill(store, series, [1])  # sent again: in its own place
    assert store.nbytes == 3 * one
    with pytest.raises(DicomSeriesError, match=r"given up: .* bytes in assembly: the limit is"):
        fill(store, series, [3])
    assert store.nbytes == 0
    with pytest.raises(DicomSeriesError, match="a further slice of series"):
        fill(store, series, [4], now_s=3.0)
    assert store.due(7.9) == []
    store.due(8.0)  # forgotten: the same series may be tried again
    fill(store, series, range(2), now_s=9.0)
    assert store.nbytes == 2 * one


def test_no_more_slices_of_a_series_than_allowed(series):
    store = SeriesStore(StoreSettings(max_slices=3))
    fill(store, series, [0, 1, 2, 1])
    with pytest.raises(DicomSeriesError, match="given up: more than 3 slices"):
        fill(store, series, [3])
    assert store.nbytes == 0


def test_what_is_counted_covers_what_is_held(series):
    """Also of the longest header that is taken, decoded, and of pixels that its Rows and Columns do not need."""
    number = "-" + "1" * 39
    store = SeriesStore(StoreSettings(quiet_s=1.0))
    longest = {"ImageOrientationPatient": [number] * 6, "ImagePositionPatient": [number] * 6}
    longest |= {"PixelSpacing": [number] * 6, "RescaleSlope": [number] * 6, "RescaleIntercept": [number] * 6}
    longest |= {"NumberOfFrames": [number[:12]] * 6, "PixelData": bytes(100_000)}
    with pydicom.config.disable_value_validation():
        encoded = [slice_bytes(series, index, **longest) for index in range(50)]
    store.add(encoded[0], "warm", "a", 0.0)
    tracemalloc.start()
    for index, data in enumerate(encoded):
        store.add(data, f"{series}.{index}", "a", 0.0)
    (closed,) = store.due(1.0)
    for slice_ in closed.slices:
        assert len(list(slice_)) > 10  # decodes each
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 50 * (100_000 + SLICE_BYTES) < closed.nbytes == store.nbytes


def test_closed_series_count_until_they_are_forgotten(series):
    store = SeriesStore(StoreSettings(quiet_s=1.0))
    fill(store, series, range(3))
    held = store.nbytes
    (closed,) = store.due(1.0)
    assert store.nbytes == held == closed.nbytes
    store.forget(closed)
    assert store.nbytes == 0


def test_no_more_series_at_once_than_allowed():
    store = SeriesStore(StoreSettings(max_series=2))
    fill(store, new_uid(), [0]), fill(store, new_uid(), [0])
    with pytest.raises(DicomSeriesError, match="2 series in assembly: the limit is 2"):
        fill(store, new_uid(), [0])


def test_nothing_that_names_the_patient_is_kept(series):
    store = SeriesStore(StoreSettings(quiet_s=1.0))
    fill(store, series, range(2))
    (closed,) = store.due(1.0)
    for slice_ in closed.slices:
        assert not {"PatientName", "PatientID", "SOPInstanceUID"} & set(slice_.dir())
        assert SECRET not in str(slice_) and getattr(slice_, "buffer", None) is None


@pytest.mark.parametrize("cut", [0, 10, 140, 200, 400])
def test_damaged_slices_are_refused_without_quoting_them(series, cut):
    store = SeriesStore(StoreSettings())
    with pytest.raises(DicomSeriesError) as refusal:
        store.add(slice_bytes(series, 0)[:cut], "x", "a", 0.0)
    assert "ZZTOP" not in str(refusal.value) and series not in str(refusal.value)
    with pytest.raises(DicomSeriesError, match="without SeriesInstanceUID"):
        store.add(slice_bytes(series, 0, SeriesInstanceUID=""), "x", "a", 0.0)


def test_a_deflated_slice_is_refused_unread(series):
    """Some bytes of deflate can be made any size, and pydicom expands them all at once."""
    encoded = slice_bytes(series, 0).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99")
    length = encoded.index(b"1.2.840.10008.1.2.1.99") - 2
    encoded = encoded[:length] + (22).to_bytes(2, "little") + encoded[length + 2 :]
    with pytest.raises(DicomSeriesError, match="deflated DICOM"):
        SeriesStore(StoreSettings()).add(encoded, "1", "a", 0.0)


def test_a_count_past_all_numbers_is_no_count(series):
    store = SeriesStore(StoreSettings())
    encoded = slice_bytes(series, 0, count=10).replace(b"\x20\x00\x02\x10IS\x02\x0010", b"\x20\x00\x02\x10DS\x02\x001 ")
    assert store.add(encoded, "1", "a", 0.0) == series_tag(series)


@pytest.mark.parametrize("syntax", ("1.2.3.4", ""))
def test_a_transfer_syntax_nobody_knows_is_a_refusal(series, syntax):
    store = SeriesStore(StoreSettings(use_count=False))
    for index in range(2):
        encoded = slice_bytes(series, index).replace(b"1.2.840.10008.1.2.1\0", syntax.encode().ljust(20, b"\0"))
        store.add(encoded, str(index), "a", 0.0)
    store.ended("a", orderly=True)
    with pytest.raises(DicomSeriesError, match=r"cannot be decoded|no installed decoder"):
        volume(store.due(0.0)[0])
