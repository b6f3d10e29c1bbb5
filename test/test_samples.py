import multiprocessing
import subprocess
import tarfile

import numpy as np
import pytest

from threedme_ros import samples as samples_module
from threedme_ros.anatomy import Anatomy
from threedme_ros.samples import SampleError, fetch_samples, sample_case, totalsegmentator_ids
from threedme_ros.volume import Grid


@pytest.fixture(scope="module")
def cases(samples):
    return {key: sample_case(key, samples) for key in "ABCD"}


@pytest.fixture(scope="module")
def loaded(cases, anatomy):
    """key -> (image, TotalSegmentator's ids, our ids), each read once."""
    return {key: (case.image(), case.source_labels(), case.labels(anatomy)) for key, case in cases.items()}


def centroid_mm(labels, structure):
    return labels.grid.to_mm(np.argwhere(labels.voxels == structure.id).mean(0)[None])[0]


def test_roles_and_sources_say_what_the_data_is(cases):
    assert {key: case.role for key, case in cases.items()} == {
        "A": "training",
        "B": "training",
        "C": "evaluation",
        "D": "evaluation",
    }
    assert all("not a human's" in case.source for case in cases.values())
    assert [cases[key].modality for key in "ABCD"] == ["ct", "ct", "ct", "mr"]


def test_structures_are_those_a_ground_truth_can_show(cases, anatomy):
    everything = {s.name for s in anatomy}
    assert set(cases["A"].structures) == set(cases["B"].structures) == everything
    assert cases["C"].structures == ("aorta",)
    assert set(cases["D"].structures) == everything - {"ribs"}


@pytest.mark.parametrize("key", "ABCD")
def test_labels_lie_on_exactly_the_image_grid_and_on_the_right_side(cases, loaded, anatomy, key):
    image, _, labels = loaded[key]
    np.testing.assert_array_equal(labels.affine, image.affine)
    assert labels.shape == image.shape and labels.voxels.dtype == np.uint8
    present = {s.name: centroid_mm(labels, s) for s in anatomy if (labels.voxels == s.id).any()}
    assert set(present) <= set(cases[key].structures)
    if key == "C":
        assert set(present) == {"aorta"}
        assert image.voxels[labels.voxels == anatomy["aorta"].id].mean() > 300  # contrast: it is the vessel
        return
    assert present["liver"][0] > 50 > -50 > present["spleen"][0]  # x is the patient's right
    assert present["vertebrae"][1] < present["stomach"][1]
    if key in "AD":
        assert present["kidney_right"][0] > 50 > -50 > present["kidney_left"][0]
    if key == "A":
        assert set(present) == {s.name for s in anatomy}
        assert present["urinary_bladder"][2] < present["liver"][2] - 200


def test_labels_and_image_agree_in_hounsfield_units(loaded, anatomy):
    """A shift or a flip of the labels would mix tissues: bone is bright, muscle and liver are not, per case."""
    for key in "AB":
        image, labels = loaded[key][0].voxels, loaded[key][2].voxels
        assert image[labels == anatomy["vertebrae"].id].mean() > 150
        assert 0 < image[labels == anatomy["liver"].id].mean() < 120
        assert 0 < image[labels == anatomy["autochthon"].id].mean() < 80


def test_source_labels_keep_every_id(loaded):
    ids = {key: np.unique(source.voxels).tolist() for key, (_, source, _) in loaded.items()}
    assert {key: len(found) for key, found in ids.items()} == {"A": 62, "B": 32, "C": 3, "D": 24}
    assert ids["C"] == [0, 51, 52]


def test_merged_structures_sum_their_parts(loaded, anatomy):
    _, source, labels = (volume.voxels for volume in loaded["A"])
    for name, parts in {"small_bowel": (18, 19), "vertebrae": range(25, 51), "ribs": range(92, 116)}.items():
        assert (labels == anatomy[name].id).sum() == np.isin(source, list(parts)).sum() > 0


def test_ids_follow_the_table_that_is_asked_for(cases, loaded, anatomy):
    liver = Anatomy.from_json(anatomy.to_json().replace('"id": 4,', '"id": 200,'))
    few = Anatomy([liver["liver"]])
    labels = cases["D"].labels(few)
    assert np.unique(labels.voxels).tolist() == [0, 200]
    assert (labels.voxels == 200).sum() == (loaded["D"][2].voxels == 4).sum()


def test_labels_on_another_grid_are_brought_to_the_image_through_mm(cases, loaded):
    """B's label file runs front to back where the DICOM rows run back to front: same places, other order."""
    case = cases["B"]
    raw = samples_module.read_volume(case.folder / case.label_files[0].path)
    image, source, _ = loaded["B"]
    assert raw.grid.orientation != image.grid.orientation
    assert isinstance(source.grid, Grid) and source.grid.matches(image.grid, 0)
    np.testing.assert_array_equal(np.bincount(source.voxels.ravel()), np.bincount(raw.voxels.ravel()))
    np.testing.assert_array_equal(source.reoriented()[0].voxels, raw.reoriented()[0].voxels)


def test_every_structure_of_the_table_has_ids_and_none_twice(anatomy):
    assert set(totalsegmentator_ids("total")) == {s.name for s in anatomy}
    for task in ("total", "total_mr"):
        ids = [i for row in totalsegmentator_ids(task).values() for i in row]
        assert len(ids) == len(set(ids))


def test_an_unknown_case_is_refused(samples):
    with pytest.raises(SampleError, match=r"sample case 'E': expected one of \['A', 'B', 'C', 'D'\]"):
        sample_case("E", samples)


# the fetch, with a stand-in for pip


@pytest.fixture
def fake_pip(tmp_path, monkeypatch):
    """`pip download` writes a small archive of the same layout; returns the list of calls."""
    inside = tmp_path / "src" / samples_module.RELEASE
    (inside / "tests/reference_files/sub").mkdir(parents=True)
    (inside / "tests/reference_files/sub/a.nii.gz").write_bytes(b"volume")
    (inside / "setup.py").write_text("raise SystemExit")
    archive = tmp_path / f"{samples_module.RELEASE}.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(inside, samples_module.RELEASE)
    calls = []

    def run(command, **options):
        calls.append(command)
        into = command[command.index("--dest") + 1]
        (samples_module.Path(into) / archive.name).write_bytes(archive.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(samples_module.subprocess, "run", run)
    monkeypatch.setattr(samples_module, "SHA256", samples_module.hashlib.sha256(archive.read_bytes()).hexdigest())
    return calls


def test_only_the_sample_files_are_unpacked_and_only_once(tmp_path, fake_pip):
    said = []
    folder = fetch_samples(tmp_path / "cache", said.append)
    assert (folder / "sub/a.nii.gz").read_bytes() == b"volume"
    assert not list(folder.rglob("setup.py"))
    assert fetch_samples(tmp_path / "cache") == folder
    assert len(fake_pip) == 1 and len(said) == 2
    assert [p.name for p in (tmp_path / "cache").iterdir() if p.is_dir()] == [samples_module.RELEASE]


def test_the_cache_follows_the_environment(tmp_path, fake_pip, monkeypatch):
    monkeypatch.setenv(samples_module.CACHE_VARIABLE, str(tmp_path / "elsewhere"))
    assert fetch_samples().parent == tmp_path / "elsewhere"


def test_another_archive_is_refused_and_leaves_nothing(tmp_path, fake_pip, monkeypatch):
    monkeypatch.setattr(samples_module, "SHA256", "0" * 64)
    with pytest.raises(SampleError, match=f"SHA-256 [0-9a-f]{{64}}: expected {'0' * 64}"):
        fetch_samples(tmp_path / "cache")
    assert not [p for p in (tmp_path / "cache").iterdir() if p.is_dir()]


def test_a_failing_pip_is_one_clear_line(tmp_path, monkeypatch):
    stderr = "WARNING: retrying\nERROR: Could not find a version\nERROR: No matching distribution found\n"
    monkeypatch.setattr(samples_module.subprocess, "run", lambda c, **o: subprocess.CompletedProcess(c, 1, "", stderr))
    with pytest.raises(SampleError, match=r"failed \(1\): ERROR: No matching distribution found$"):
        fetch_samples(tmp_path / "cache")


def test_a_silent_registry_is_a_sample_error(tmp_path, monkeypatch):
    def run(command, timeout, **options):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(samples_module.subprocess, "run", run)
    with pytest.raises(SampleError, match="no answer in 600 s"):
        fetch_samples(tmp_path / "cache")


def test_an_unwritable_cache_is_a_sample_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SampleError, match="sample cache"):
        fetch_samples(tmp_path / "file")


def test_two_processes_at_once_download_once(tmp_path, fake_pip):
    queue = multiprocessing.get_context("fork").Queue()

    def fetch():
        queue.put((str(fetch_samples(tmp_path / "cache")), len(fake_pip)))

    workers = [multiprocessing.get_context("fork").Process(target=fetch) for _ in range(2)]
    for worker in workers:
        worker.start()
    got = [queue.get(timeout=20) for _ in workers]
    for worker in workers:
        worker.join(20)
    assert {folder for folder, _ in got} == {str(tmp_path / "cache" / samples_module.RELEASE)}
    assert sum(calls for _, calls in got) == 1
