import csv
import json

import numpy as np
import pytest

from threedme_ros.anatomy import Anatomy, Structure
from threedme_ros.inference.cohort import (
    CohortError,
    Shard,
    group_channels,
    segment_cohort,
    shard_from_environment,
)
from threedme_ros.inference.segmenter import Segmenter
from threedme_ros.volume import Volume
from threedme_ros.volume_io import read_volume, write_volume

ANATOMY = Anatomy(
    [Structure(1, "dim", (1, 2, 3), 0.0, "context"), Structure(2, "bright", (4, 5, 6), 0.0, "target")]
)  # fmt: skip


class Counting(Segmenter):
    """Counts the volumes it segments."""

    count = 0

    def segment(self, volume):
        self.count += 1
        return super().segment(volume)


@pytest.fixture
def segmenter(thresholds):
    thresholds.anatomy = ANATOMY
    return Counting(thresholds, engine="torch")


@pytest.fixture
def scans(tmp_path):
    """Five CT volumes on a 2 mm grid; of case n, n + 1 slices are bright. name -> file."""
    found = {}
    for n in range(5):
        voxels = np.full((8, 8, 16), -190, np.int16)
        voxels[:, :, : n + 1] = 180
        voxels[0, 0, -1] = -500  # air, so that it is CT
        path = tmp_path / "scans" / f"site{n % 2}" / f"case{n}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_volume(path, Volume(voxels, np.diag([2.0, 2.0, 2.0, 1.0])))
        found[path.relative_to(tmp_path / "scans").as_posix()] = path
    return found


def test_labels_records_and_one_report(segmenter, scans, tmp_path):
    cases, output = group_channels(scans, ("0",)), tmp_path / "out"
    report = segment_cohort(cases, segmenter, output)
    assert (report["cases"], report["done"], report["left"], report["failed"]) == (5, 5, 0, [])
    labels = read_volume(output / "labels/site1/case3.nii.gz")
    assert (labels.voxels[:, :, :4] == 2).all() and not (labels.voxels[:, :, 4:] == 2).any()
    rows = list(csv.DictReader((output / "predict.csv").open()))
    # case n: n + 1 slices of 64 voxels of 8 mm^3
    bright = {row["case"]: float(row["bright ml"]) for row in rows}
    assert bright == {name: pytest.approx((n + 1) * 64 * 8 / 1000) for n, name in enumerate(scans)}
    assert json.loads((output / "predict.json").read_text()) == report
    assert not list(output.rglob(".*"))


def test_what_is_finished_is_not_done_again(segmenter, scans, tmp_path):
    cases, output = group_channels(scans, ("0",)), tmp_path / "out"
    segment_cohort(cases, segmenter, output)
    segment_cohort(cases, segmenter, output)
    assert segmenter.count == 5
    (output / "labels/site0/case2.nii.gz").unlink()  # lost
    first = scans["site1/case1.nii.gz"]
    write_volume(first, read_volume(first).with_voxels(read_volume(first).voxels + 1))  # changed
    segment_cohort(cases, segmenter, output)
    assert segmenter.count == 7
    segmenter.checkpoint.hash = "1" * 16  # another checkpoint
    assert segment_cohort(cases, segmenter, output)["done"] == 5
    assert segmenter.count == 12


def test_a_case_with_a_damaged_record_is_done_again(segmenter, scans, tmp_path):
    cases, output = group_channels(scans, ("0",)), tmp_path / "out"
    segment_cohort(cases, segmenter, output)
    path = output / "cases/site0/case2.nii.gz.json"
    whole = json.loads(path.read_text())
    changes = [{"seconds": "1"}, {"seconds": 10**400}, {"warnings": 3}, {"warnings": [3]}, {"name": None}]
    changes += [{"volumes_ml": []}, {"volumes_ml": {"bright": "x"}}, {"state": "failed"}, {"state": ["done"]}]
    for change in changes:
        path.write_text(json.dumps(whole | change))
        done, report = segmenter.count, segment_cohort(cases, segmenter, output)
        assert (segmenter.count, report["done"], report["failed"]) == (done + 1, 5, []), change
    path.write_bytes(b"[" * 5000)
    assert segment_cohort(cases, segmenter, output)["done"] == 5


def test_a_killed_run_goes_on(segmenter, scans, tmp_path, monkeypatch):
    cases, output = group_channels(scans, ("0",)), tmp_path / "out"

    def killed(items, total):
        for number, item in enumerate(items):
            if number == 2:
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        segment_cohort(cases, segmenter, output, progress=killed)
    assert json.loads((output / "predict.json").read_text())["left"] == 3
    assert segment_cohort(cases, segmenter, output)["done"] == 5
    assert segmenter.count == 5


def test_ranks_share_out_every_case_once_and_the_last_reports_all(segmenter, scans, tmp_path):
    cases, output = group_channels(scans, ("0",)), tmp_path / "out"
    reports = [segment_cohort(cases, segmenter, output, shard=Shard(rank, 3)) for rank in range(3)]
    assert segmenter.count == 5
    assert [r["done"] for r in reports] == [2, 4, 5]


def test_a_bad_case_is_an_error_that_names_it(segmenter, scans, tmp_path):
    scans["site1/case1.nii.gz"].write_bytes(b"no volume")
    cases, output = group_channels(scans, ("0",)), tmp_path / "out"
    with pytest.raises(CohortError, match=r"case site1/case1\.nii\.gz: .*--skip-bad-cases"):
        segment_cohort(cases, segmenter, output)
    report = segment_cohort(cases, segmenter, output, skip_bad_cases=True)
    assert (report["done"], [f["name"] for f in report["failed"]]) == (4, ["site1/case1.nii.gz"])


def test_a_full_disk_leaves_what_is_finished(segmenter, scans, tmp_path, monkeypatch):
    import threedme_ros.inference.cohort as cohort

    cases, output = group_channels(scans, ("0",)), tmp_path / "out"

    def full(path, volume):
        if "case3" in path.name:
            raise OSError(28, "No space left on device")
        write_volume(path, volume)

    monkeypatch.setattr(cohort, "write_volume", full)
    with pytest.raises(OSError, match=r"case3\.nii\.gz: cannot write, is the disk full\? \(No space left"):
        segment_cohort(cases, segmenter, output)
    assert json.loads((output / "predict.json").read_text())["done"] == 3


@pytest.mark.parametrize(
    ("environment", "shard"),
    [
        ({}, Shard(0, 1, 0)),
        ({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, Shard(3, 8, 1)),
        ({"SLURM_PROCID": "5", "SLURM_NTASKS": "6", "SLURM_LOCALID": "2"}, Shard(5, 6, 2)),
    ],
)
def test_rank_from_the_launcher(environment, shard):
    assert shard_from_environment(environment) == shard


def test_a_rank_beyond_its_count():
    with pytest.raises(CohortError, match="RANK='8', WORLD_SIZE='8'"):
        shard_from_environment({"RANK": "8", "WORLD_SIZE": "8"})


@pytest.mark.parametrize("endings", [("flair", "t1"), ("0000", "0001")])
def test_channels_are_grouped_by_their_endings(tmp_path, endings):
    names = [f"p{n}/p{n}_{e}.nii.gz" for n in (0, 1) for e in endings[::-1]]
    cases = group_channels({name: tmp_path / name for name in names}, ("flair", "t1"))
    assert [c.name for c in cases] == ["p0/p0.nii.gz", "p1/p1.nii.gz"]
    assert [p.name for p in cases[0].files] == [f"p0_{e}.nii.gz" for e in endings]


def test_missing_and_unknown_channels_are_named(tmp_path):
    with pytest.raises(CohortError, match=r"case a\.nii\.gz: no t1 file"):
        group_channels({"a_flair.nii.gz": tmp_path / "a_flair.nii.gz"}, ("flair", "t1"))
    with pytest.raises(CohortError, match=r"a_t2\.nii\.gz: no channel"):
        group_channels({"a_t2.nii.gz": tmp_path / "a_t2.nii.gz"}, ("flair", "t1"))
