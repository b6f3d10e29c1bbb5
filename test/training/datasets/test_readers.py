import json
import tracemalloc
import zipfile

import numpy as np
import pytest
from sklearn.model_selection import KFold

from threedme_ros.training.datasets import brats, btcv, medmnist3d, msd, nnunet
from threedme_ros.training.datasets.cases import DatasetError, SegmentationCase, five_folds, split_cases

BRATS = ("flair", "t1", "t1ce", "t2")


@pytest.mark.parametrize("count", [2, 3, 5, 7, 41])
def test_folds_are_those_of_kfold_with_nnunets_seed(count):
    names = [f"case_{i:03d}" for i in range(count)]
    expected = list(KFold(min(5, count), shuffle=True, random_state=12345).split(names))
    for fold, (training, held) in enumerate(expected):
        assert five_folds(names[::-1], fold) == ([names[i] for i in training], [names[i] for i in held])


def test_a_fold_that_does_not_exist():
    with pytest.raises(DatasetError, match="fold 3: expected 0 to 2 for 3 cases"):
        five_folds(["a", "b", "c"], 3)
    with pytest.raises(DatasetError, match="expected at least two"):
        five_folds(["a"], 0)


@pytest.mark.parametrize("folders", [("imagesTr", "labelsTr"), ("RawData/Training/img", "RawData/Training/label")])
def test_btcv_in_both_layouts(dataset, folders):
    root = dataset("btcv", folders=folders)
    cases = btcv.find_cases(root, ("CT",))
    assert [c.name for c in cases] == ["img0001", "img0002", "img0003"]
    assert [c.labels.name for c in cases] == ["label0001.nii.gz", "label0002.nii.gz", "label0003.nii.gz"]


def test_btcv_names_what_is_missing(dataset, tmp_path):
    root = dataset("btcv")
    (root / "RawData/Training/label/label0002.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"label0002\.nii\.gz: no such file; expected the labels of .*img0002"):
        btcv.find_cases(root, ("CT",))
    with pytest.raises(DatasetError, match="no BTCV layout"):
        btcv.find_cases(tmp_path, ("CT",))


def test_brats_channels_in_the_tasks_order(dataset):
    cases = brats.find_cases(dataset("brats2021"), BRATS)
    assert [p.name for p in cases[1].images] == [f"BraTS2021_00001_{m}.nii.gz" for m in BRATS]
    assert cases[1].labels.name == "BraTS2021_00001_seg.nii.gz"


def test_brats_below_the_archives_own_folder(dataset):
    root = dataset("brats2021")
    assert len(brats.find_cases(root.parent, BRATS)) == 3


def test_brats_missing_modality(dataset):
    root = dataset("brats2021")
    (root / "BraTS2021_00001/BraTS2021_00001_t1ce.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"BraTS2021_00001_t1ce\.nii\.gz: no such file; expected the t1ce of case"):
        brats.find_cases(root, BRATS)


def test_msd_follows_dataset_json(dataset):
    root = dataset("msd_liver")
    cases = msd.find_cases(root, ("CT",))
    assert [c.name for c in cases] == ["liver_000", "liver_001", "liver_002"]
    msd.check_labels(root, {1: "liver", 2: "tumour"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"training": []}, "training: expected a list"),
        ({"training": [{"image": "./imagesTr/x.nii.gz"}]}, r"training\[0\] .*expected `image` and `label`"),
        ({"training": [{"image": "./a.nii.gz", "label": "./b.nii.gz"}]}, r"a\.nii\.gz: no such file"),
        ({"modality": {"0": "T1", "1": "T2"}}, "modality .*expected 1, CT"),
    ],
)
def test_msd_bad_description(dataset, change, message):
    root = dataset("msd_spleen")
    file = root / "dataset.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(DatasetError, match=message):
        msd.find_cases(root, ("CT",))


def test_msd_of_another_task(dataset):
    with pytest.raises(DatasetError, match="is this the right task"):
        msd.check_labels(dataset("msd_liver"), {1: "spleen"})


def test_no_description_and_no_folder(tmp_path):
    with pytest.raises(DatasetError, match=r"dataset\.json: no such file"):
        msd.find_cases(tmp_path, ("CT",))
    with pytest.raises(DatasetError, match="nowhere: no such folder"):
        nnunet.read_description(tmp_path / "nowhere")
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(DatasetError, match="not readable as JSON"):
        msd.find_cases(tmp_path, ("CT",))


def test_nnunet_channels_and_modalities(dataset):
    root = dataset("nnunet")
    description = nnunet.read_description(root)
    assert (description.channels, description.modalities) == (("CT", "PET"), ("ct", "other"))
    assert description.structures == {1: "liver", 2: "lesion"} and description.regions == {}
    cases = nnunet.find_cases(root, description.channels, description.ending)
    assert [p.name for p in cases[0].images] == ["p0_0000.nrrd", "p0_0001.nrrd"]


def test_nnunet_regions(dataset):
    root = dataset("nnunet")
    file = root / "dataset.json"
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"labels": labels}))
    description = nnunet.read_description(root)
    assert description.regions == {"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}
    assert description.structures == {1: "label_1", 2: "label_2", 3: "enhancing"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channel_names": {"1": "CT"}}, "channel_names"),
        ({"labels": {"liver": 1}}, "background 0"),
        ({"labels": {"background": 0, "a": 1, "ignore": 2}}, "ignore label .* not supported"),
        ({"labels": {"background": 0, "a": "one"}}, "label 'a'"),
        ({"file_ending": ".tif"}, r"file_ending '\.tif'"),
    ],
)
def test_nnunet_bad_description(dataset, change, message):
    root = dataset("nnunet")
    file = root / "dataset.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(DatasetError, match=message):
        nnunet.read_description(root)


def test_nnunet_missing_channel(dataset):
    root = dataset("nnunet")
    (root / "imagesTr/p1_0001.nrrd").unlink()
    with pytest.raises(DatasetError, match=r"p1_0001\.nrrd: no such file; expected channel 1 \(PET\) of case p1"):
        nnunet.find_cases(root, ("CT", "PET"), ".nrrd")


def test_nnunets_own_split_file_is_followed(dataset):
    root = dataset("msd_spleen")
    cases = msd.find_cases(root, ("CT",))
    names = [c.name for c in cases]
    (root / "splits_final.json").write_text(json.dumps([{"train": names[1:], "val": names[:1]}]))
    assert [c.name for c in split_cases(root, cases, 0).test] == names[:1]
    (root / "splits_final.json").write_text(json.dumps([{"train": ["x"], "val": names[:1]}]))
    with pytest.raises(DatasetError, match="'x' is no case here"):
        split_cases(root, cases, 0)


@pytest.mark.parametrize(
    ("folds", "reason"),
    [
        ([{"train": [[]], "val": ["a"]}], r"train \[\[\]\]: expected a list of cases"),
        ([{"train": [{}], "val": ["a"]}], "expected a list of cases"),
        ([{"train": ["a"], "val": "b"}], "val 'b': expected a list of cases"),
        ([{"train": {"a": 1}, "val": ["b"]}], "expected a list of cases"),
        ([{"train": ["a"], "val": []}], r"val \[\]: expected a list of cases"),
        ([{"train": ["a", "a"], "val": ["b"]}], "'a' twice"),
        ([{"train": ["a"], "val": ["b", "a"]}], "'a' twice; expected two lists without a common case"),
        ({"0": {"train": ["a"], "val": ["b"]}}, "no fold 0 with"),
        ([[]], "no fold 0 with"),
        ([], "no fold 0 with"),
        (None, "no fold 0 with"),
    ],
    ids=range(11),
)
def test_a_split_file_of_another_kind_is_refused(tmp_path, folds, reason):
    cases = [SegmentationCase(name, (tmp_path / name,), tmp_path / name) for name in "ab"]
    (tmp_path / "splits_final.json").write_text(json.dumps(folds))
    with pytest.raises(DatasetError, match=rf"splits_final\.json: .*{reason}"):
        split_cases(tmp_path, cases, 0)


def test_no_split_is_counted_from_the_end(tmp_path):
    cases = [SegmentationCase(name, (tmp_path / name,), tmp_path / name) for name in "ab"]
    (tmp_path / "splits_final.json").write_text(json.dumps([{"train": ["a"], "val": ["b"]}]))
    with pytest.raises(DatasetError, match="no fold -1 with"):
        split_cases(tmp_path, cases, -1)


@pytest.mark.parametrize("name", ("dataset.json", "splits_final.json"))
def test_a_description_of_400_megabytes_is_not_read_whole(tmp_path, name):
    cases = [SegmentationCase(case, (tmp_path / case,), tmp_path / case) for case in "ab"]
    with (tmp_path / name).open("wb") as file:
        file.truncate(400 << 20)
    read = {"dataset.json": nnunet.read_description, "splits_final.json": lambda root: split_cases(root, cases, 0)}
    tracemalloc.start()
    with pytest.raises(DatasetError, match="more than 16777216 bytes"):
        read[name](tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40 << 20


@pytest.mark.parametrize(("name", "size"), [("medmnist_nodule", 28), ("medmnist_vessel", 64)])
def test_medmnist_in_both_sizes(dataset, name, size):
    flag = name.removeprefix("medmnist_") + "mnist3d"
    splits = medmnist3d.read_splits(medmnist3d.find_file(dataset(name), flag), 2)
    assert splits["test"].images.shape == (4, size, size, size)
    assert splits["train"].labels.tolist() == [0, 1, 0, 1]


def test_medmnist_missing_file(dataset):
    with pytest.raises(DatasetError, match=r"no organmnist3d\.npz or organmnist3d_64\.npz in it; it holds nodule"):
        medmnist3d.find_file(dataset("medmnist_nodule"), "organmnist3d")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("val_labels", None, "no val_labels in it"),
        ("test_images", np.zeros((4, 28, 28), np.uint8), r"test_images \(4, 28, 28\) uint8: expected \(N, D, H, W\)"),
        ("train_labels", np.full((4, 1), 2), "train_labels from 2 to 2: expected 0 to 1"),
        ("train_labels", np.zeros((3, 1), int), r"train_labels \(3, 1\)"),
    ],
)
def test_medmnist_bad_arrays(dataset, key, value, message):
    path = medmnist3d.find_file(dataset("medmnist_nodule"), "nodulemnist3d")
    with np.load(path) as file:
        arrays = dict(file)
    arrays.pop(key)
    if value is not None:
        arrays[key] = value
    np.savez(path, **arrays)
    with pytest.raises(DatasetError, match=message):
        medmnist3d.read_splits(path, 2)


def test_medmnist_damaged_file(tmp_path):
    (tmp_path / "organmnist3d.npz").write_bytes(b"PK not a zip")
    with pytest.raises(DatasetError, match="not a readable npz"):
        medmnist3d.read_splits(tmp_path / "organmnist3d.npz", 11)


def npy(header: str, body: bytes = b"") -> bytes:
    text = header.encode() + b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body


def described(dtype: str, shape: str, body: bytes = b"") -> bytes:
    return npy(f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}", body)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (described("|u1", "(1 << 50,)"), "not a readable npz"),
        (described("|u1", "(1125899906842624,)"), "expected 1 to 2147483648 bytes"),
        (described("|u1", "(-1, 4, 4, 4)"), r"of shape .* expected"),
        (described("|O", "(1,)", b"cos\nsystem\n"), "of object: expected integers"),
        (described("|u1", "(1, 4, 4, 4)", bytes(10 << 20)), "its header claims 64"),
        (described("|u1", "(1, 4, 4, 4)", bytes(63)), "its header claims 64"),
        (npy("{'descr': __import__('os').system('id')}"), "not a readable npz"),
        (b"no array", "not a readable npz"),
    ],
    ids=range(8),
)
def test_medmnist_arrays_are_judged_by_their_header_before_memory_is_taken(tmp_path, content, message):
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train_images.npy", content)
    for _ in range(2):  # what is imported on first use is no matter here
        tracemalloc.start()
        with pytest.raises(DatasetError, match=message):
            medmnist3d.read_splits(path, 2)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 1 << 22


@pytest.mark.parametrize("packing", (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
def test_medmnist_packed_so_that_a_piece_has_no_bound_is_refused_before_memory_is_taken(tmp_path, packing):
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", packing) as archive:
        archive.writestr("train_images.npy", described("|u1", "(1, 16, 16, 16)", bytes(32 << 20)))
    for _ in range(2):  # what is imported on first use is no matter here
        tracemalloc.start()
        with pytest.raises(DatasetError, match=rf"train_images packed by method {packing}: expected one of \(0, 8\)"):
            medmnist3d.read_splits(path, 2)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 1 << 22


@pytest.mark.parametrize("data", [b"\x80\x04cos\nsystem\n(S'id'\ntR.", b"\x93NUMPY", b""])
def test_medmnist_that_is_a_pickle_an_array_or_nothing(tmp_path, data):
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(DatasetError, match="not a readable npz"):
        medmnist3d.read_splits(tmp_path / "x.npz", 2)


@pytest.mark.parametrize(
    "name", ("../secret.nii.gz", "/etc/hostname", "./imagesTr/../../secret.nii.gz", "a" * 300, "a\0b")
)
def test_msd_lists_no_file_outside_the_data_set(dataset, name):
    root = dataset("msd_spleen")
    (root.parent / "secret.nii.gz").write_bytes(b"secret")
    document = json.loads((root / "dataset.json").read_text())
    document["training"][0]["image"] = name
    (root / "dataset.json").write_text(json.dumps(document))
    with pytest.raises(DatasetError, match=r"within the data set|File name too long|no such file"):
        msd.find_cases(root, ("CT",))
