import os

import numpy as np
import pytest

from threedme_ros.inference.preprocess import prepare
from threedme_ros.model.config import Preprocessing
from threedme_ros.phantom import phantom
from threedme_ros.training.errors import TrainingError
from threedme_ros.training.volume_cache import find_volumes, prepare_volumes, sample_volumes
from threedme_ros.volume_io import read_volume, write_volume

COARSE = Preprocessing(spacing_mm=(10, 10, 10))


@pytest.fixture
def folder(tmp_path):
    image, _ = phantom((36, 30, 40), (10, 10, 10))
    for name in ("a.nii.gz", "b.mha", "deep/er/c.nrrd"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        write_volume(tmp_path / "data" / name, image)
    return tmp_path / "data"


def write_dicom_slice(path, z_mm):
    import pydicom
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    data = pydicom.Dataset()
    data.SOPClassUID, data.SOPInstanceUID, data.SeriesInstanceUID = CTImageStorage, generate_uid(), "1.2.3"
    data.Rows = data.Columns = 32
    data.ImageOrientationPatient, data.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, z_mm]
    data.PixelSpacing, data.PhotometricInterpretation, data.SamplesPerPixel = [10, 10], "MONOCHROME2", 1
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation, data.RescaleSlope, data.RescaleIntercept = 15, 0, 1, -1024
    data.PixelData = (np.arange(32 * 32, dtype=np.uint16) * 2).tobytes()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.save_as(path, enforce_file_format=True)


def test_files_of_every_format_are_found_at_any_depth_and_labels_are_not(folder):
    (folder / "labelsTr").mkdir()
    (folder / "labelsTr" / "a.nii.gz").write_bytes(b"")
    (folder / "a_seg.nii.gz").write_bytes(b"")
    (folder / "notes.txt").write_text("no scan")
    assert list(find_volumes(folder)) == ["a.nii.gz", "b.mha", "deep/er/c.nrrd"]


def test_a_folder_of_dicom_slices_is_one_case(folder):
    (folder / "series").mkdir()
    for number in range(20):
        write_dicom_slice(folder / "series" / f"IM{number}", number * 10.0)  # no suffix, as scanners write them
    found = find_volumes(folder)
    assert found["series"] == folder / "series"
    volumes, bad = prepare_volumes({"series": found["series"]}, folder.parent / "cache", COARSE)
    assert bad == [] and volumes[0].shape == (20, 32, 32)


def test_a_prepared_volume_is_what_the_one_preprocess_makes(folder, tmp_path):
    volumes, _ = prepare_volumes(find_volumes(folder), tmp_path / "cache", COARSE)
    expected = prepare(read_volume(folder / "a.nii.gz"), COARSE).x
    array = volumes[0].open()
    assert isinstance(array, np.memmap) and array.shape == volumes[0].shape == expected.shape
    np.testing.assert_allclose(array, expected, atol=5e-4)


def test_the_second_time_nothing_is_read_and_a_changed_scan_or_setting_is_made_again(folder, tmp_path, monkeypatch):
    found, cache = find_volumes(folder), tmp_path / "cache"
    first, _ = prepare_volumes(found, cache, COARSE)
    with monkeypatch.context() as patch:
        patch.setattr("threedme_ros.training.volume_cache.read_volume", lambda path: pytest.fail(f"{path} was read"))
        assert prepare_volumes(found, cache, COARSE, start=2)[0] == first
    os.utime(folder / "a.nii.gz", ns=(1, 1))
    again, _ = prepare_volumes(found, cache, COARSE)
    assert [a.path == b.path for a, b in zip(first, again, strict=True)] == [False, True, True]
    finer, _ = prepare_volumes(found, cache, Preprocessing(spacing_mm=(9, 9, 9)))
    assert not {v.path for v in finer} & {v.path for v in again}


def test_a_damaged_cache_file_is_made_again(folder, tmp_path):
    found, cache = find_volumes(folder), tmp_path / "cache"
    first, _ = prepare_volumes(found, cache, COARSE)
    first[0].path.write_bytes(first[0].path.read_bytes()[:-100])
    again, _ = prepare_volumes(found, cache, COARSE)
    assert again[0].open().shape == first[0].shape


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"{'descr'", b"('descr'"),  # tokenize.TokenError
        (b"'<f2'", b"'<f2,"),  # SyntaxError
        (b"(40, ", b"(4j, "),
        (b"'<f2'", b"'<i2'"),
        (b"False", b"0x1ff"),
        (b"\x93NUMPY", b"PK\x03\x04UM"),
    ],
)
def test_a_cache_file_with_an_odd_header_is_made_again(folder, tmp_path, old, new):
    found, cache = {"a.nii.gz": folder / "a.nii.gz"}, tmp_path / "cache"
    (first,), _ = prepare_volumes(found, cache, COARSE)
    before = first.path.read_bytes()
    assert first.shape == (40, 30, 36) and old in before
    first.path.write_bytes(before.replace(old, new, 1))
    assert prepare_volumes(found, cache, COARSE)[0] == [first]
    assert first.path.read_bytes() == before


def test_a_cache_file_of_another_rank_is_made_again(folder, tmp_path):
    found, cache = {"a.nii.gz": folder / "a.nii.gz"}, tmp_path / "cache"
    (first,), _ = prepare_volumes(found, cache, COARSE)
    np.save(first.path, np.zeros((2, 2), np.float16))
    assert prepare_volumes(found, cache, COARSE)[0] == [first]


def test_threads_prepare_what_one_does(folder, tmp_path):
    found = find_volumes(folder)
    alone, _ = prepare_volumes(found, tmp_path / "one", COARSE)
    together, _ = prepare_volumes(found, tmp_path / "two", COARSE, workers=2)
    assert [v.path.name for v in together] == [v.path.name for v in alone]


def test_an_unreadable_case_is_named_or_listed_and_skipped(folder, tmp_path):
    (folder / "broken.nii.gz").write_bytes(b"\x1f\x8b not gzip")
    found = find_volumes(folder)
    with pytest.raises(TrainingError, match=r"broken.nii.gz: .*--skip-bad-cases"):
        prepare_volumes(found, tmp_path / "cache", COARSE)
    volumes, bad = prepare_volumes(found, tmp_path / "cache", COARSE, skip_bad_cases=True)
    assert [v.name for v in volumes] == ["a.nii.gz", "b.mha", "deep/er/c.nrrd"]
    assert [case.name for case in bad] == ["broken.nii.gz"] and bad[0].reason


def test_skipping_everything_is_an_error(folder, tmp_path):
    (folder / "broken.nii.gz").write_bytes(b"")
    found = {"broken.nii.gz": folder / "broken.nii.gz"}
    with pytest.raises(TrainingError, match=r"none of 1 cases can be used; the first, broken\.nii\.gz"):
        prepare_volumes(found, tmp_path / "cache", COARSE, skip_bad_cases=True)


def test_a_full_disk_is_said_and_leaves_no_half_file(folder, tmp_path, monkeypatch):
    def full(file, array, **options):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match=r"cannot write a prepared volume \(No space left on device\)"):
        prepare_volumes(find_volumes(folder), tmp_path / "cache", COARSE)
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_empty_or_absent_folder_is_an_error(tmp_path):
    with pytest.raises(TrainingError, match=r"no volume in it; expected \.nii"):
        find_volumes(tmp_path)
    with pytest.raises(TrainingError, match="no such folder"):
        find_volumes(tmp_path / "absent")


def test_the_patients_kept_for_evaluation_are_refused(samples):
    with pytest.raises(TrainingError, match="kept for evaluation"):
        find_volumes(samples)
    with pytest.raises(TrainingError, match="kept for evaluation"):
        find_volumes(samples.parent)
    with pytest.raises(TrainingError, match=r"case D .* is for evaluation only"):
        sample_volumes(("A", "D"))
