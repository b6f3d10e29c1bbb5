"""What a task's run does with bad input, and after a kill."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import threedme_ros.training.run_folder
import threedme_ros.training.task_cache as task_cache
from threedme_ros.cli import main
from threedme_ros.model.adapters import Adaptation, load_base
from threedme_ros.model.checkpoint import CheckpointError
from threedme_ros.model.trained import load_trained
from threedme_ros.training.datasets.cases import DatasetError
from threedme_ros.training.errors import TrainingError
from threedme_ros.training.finetune import FineTuner, Start, finetune
from threedme_ros.training.task_cache import prepare_cases
from threedme_ros.training.task_data import find_split, open_task, planned
from threedme_ros.training.task_evaluation import check_fits
from threedme_ros.training.task_samples import CaseWindows
from threedme_ros.training.task_table import Recipe
from threedme_ros.volume_io import read_volume, write_volume

RECIPE = Recipe(steps=4, batch_size=1, precision="fp32", workers=0, save_every=2)


@pytest.fixture
def spleen(dataset):
    data = dataset("msd_spleen")
    return replace(open_task("msd_spleen", data), window=(32, 32, 32), recipe=RECIPE), data


@pytest.fixture
def start(tiny_foundation):
    return Start(load_base(tiny_foundation), Adaptation("lora", rank=2))


def prepared(task, data, tmp_path, **options):
    return prepare_cases(find_split(task, data, 0).training, task, tmp_path / "cache", **options)


def test_cases_are_made_once(spleen, tmp_path, monkeypatch):
    task, data = spleen
    good, bad = prepared(task, data, tmp_path)
    assert [c.name for c in good] == ["spleen_001", "spleen_002"] and not bad
    monkeypatch.setattr(task_cache, "read_volume", None)  # a second read would fail
    again, _ = prepared(task, data, tmp_path)
    assert [c.path for c in again] == [c.path for c in good]
    assert all(torch.equal(a.places[1], b.places[1]) for a, b in zip(good, again, strict=True))


def places(*rows, dtype=torch.int16):
    return {"places": torch.tensor(rows, dtype=dtype)}


@pytest.mark.parametrize(
    "change",
    [
        places(),
        places([1, 0, 0]),
        places([1, 0, 0, 9999]),
        places([1, 0, 0, -1]),
        places([1.0, 0, 0, float("nan")], dtype=torch.float32),
        {"labels": torch.zeros(2, dtype=torch.uint8)},
        {"labels": torch.zeros(2, 2, 2, dtype=torch.uint8)},
        {"image": torch.zeros(3)},
        {"image": None},
    ],
    ids=range(9),
)
def test_a_damaged_case_is_made_again(spleen, tmp_path, change):
    task, data = spleen
    (good, *_), _ = prepared(task, data, tmp_path)
    before = good.path.read_bytes()
    save_file({k: v for k, v in (load_file(good.path) | change).items() if v is not None}, good.path)
    (again, *_), _ = prepared(task, data, tmp_path)
    assert again.path.read_bytes() == before
    assert torch.equal(again.places[1], good.places[1])


def test_an_unbent_window_is_cut_out_exactly(spleen, tmp_path):
    task, data = spleen
    task = replace(task, recipe=replace(RECIPE, acquisition=0.0, warp=replace(RECIPE.warp, share=0.0)))
    (case, *_), _ = prepared(task, data, tmp_path)
    image, labels = case.window([slice(None)] * 3)
    windows = CaseWindows([case], task)
    for index in range(4):
        x, y = windows[index]
        assert x.shape == (1, 32, 32, 32) and y.shape == (32, 32, 32)
        assert torch.equal(windows[index][0], x)  # the same whenever it is drawn
        known = torch.cat([image.flatten(), torch.tensor([-1.0])])
        assert (x.unique()[:, None] - known.unique()).abs().amin(1).max() < 1e-5  # nothing is interpolated
        assert y.sum() <= labels.sum()


def test_labels_outside_the_table(spleen, tmp_path):
    task, data = spleen
    path = data / "labelsTr/spleen_002.nii.gz"
    labels = read_volume(path)
    write_volume(path, labels.with_voxels(np.where(labels.voxels == 1, 7, 0).astype(np.uint8)))
    with pytest.raises(DatasetError, match=r"spleen_002\.nii\.gz: label values \[7\]: expected only \[0, 1\]"):
        prepared(task, data, tmp_path)
    good, bad = prepared(task, data, tmp_path, skip_bad_cases=True)
    assert [c.name for c in good] == ["spleen_001"]
    assert [b.name for b in bad] == ["spleen_002"] and "label values [7]" in bad[0].reason


def test_labels_on_another_grid(spleen, tmp_path):
    task, data = spleen
    path = data / "labelsTr/spleen_001.nii.gz"
    labels = read_volume(path)
    write_volume(path, replace(labels, affine=labels.affine @ np.diag([1, 1, 2, 1.0])))
    with pytest.raises(DatasetError, match="expected the image's grid"):
        prepared(task, data, tmp_path)


def test_an_unreadable_case_by_the_command(spleen, tiny_foundation, tmp_path, capsys):
    _, data = spleen
    (data / "imagesTr/spleen_000.nii.gz").write_bytes(b"no volume")  # of the held-out case: found before training
    command = ["finetune", "msd_spleen", "--data", data, "--output", tmp_path / "run", "--foundation", tiny_foundation]
    command = [str(c) for c in [*command, "--workers", 0, "--check-only"]]
    assert main(command) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "case spleen_000" in error and "spleen_000.nii.gz" in error and "--skip-bad-cases" in error


def test_one_bad_case_more_is_listed_and_skipped(spleen, tiny_foundation, tmp_path, capsys):
    _, data = spleen
    (data / "imagesTr/spleen_001.nii.gz").write_bytes(b"no volume")
    command = ["finetune", "msd_spleen", "--data", data, "--output", tmp_path / "run", "--foundation", tiny_foundation]
    assert main([str(c) for c in [*command, "--workers", 0, "--check-only", "--skip-bad-cases"]]) == 0
    printed = capsys.readouterr().out
    assert "skipped spleen_001" in printed and "1 training cases; 1 held out" in printed


def test_a_full_disk_while_cases_are_prepared(spleen, tmp_path, monkeypatch):
    task, data = spleen

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(task_cache, "save_file", full)
    with pytest.raises(OSError, match="cannot write case spleen_001, is the disk full"):
        prepared(task, data, tmp_path)


def test_a_full_disk_before_the_first_step(spleen, start, tmp_path, monkeypatch):
    task, data = spleen
    usage = type("Usage", (), {"free": 1000})
    samples = CaseWindows(prepared(task, data, tmp_path)[0], task)
    monkeypatch.setattr(threedme_ros.training.run_folder.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="MB free, expected"):
        finetune(task, start, samples, tmp_path / "run")


def test_a_loss_that_is_not_finite(spleen, start, tmp_path, monkeypatch):
    task, data = spleen
    samples = CaseWindows(prepared(task, data, tmp_path)[0], task)
    monkeypatch.setattr(CaseWindows, "__getitem__", lambda self, i: (torch.full((1, 32, 32, 32), torch.nan), ZEROS))
    with pytest.raises(TrainingError, match=r"step 0: loss nan.*samples of spleen_00\d"):
        finetune(task, start, samples, tmp_path / "run")
    assert not (tmp_path / "run/checkpoint.safetensors").exists()


ZEROS = torch.zeros(32, 32, 32, dtype=torch.uint8)


def test_a_killed_run_ends_as_if_it_had_not_been(spleen, start, tmp_path, monkeypatch):
    task, data = spleen
    samples = CaseWindows(prepared(task, data, tmp_path)[0], task)
    whole = finetune(task, start, samples, tmp_path / "whole")
    step = FineTuner.train_step

    def killed(self, batches):
        if self.step == 3:
            raise KeyboardInterrupt
        return step(self, batches)

    with monkeypatch.context() as patch:
        patch.setattr(FineTuner, "train_step", killed)
        with pytest.raises(KeyboardInterrupt):
            finetune(task, start, samples, tmp_path / "cut")
    with pytest.raises(TrainingError, match="holds a run: go on with --resume"):
        finetune(task, start, samples, tmp_path / "cut")
    resumed = finetune(task, start, samples, tmp_path / "cut", resume=True)
    lines = [json.loads(line)["loss"] for line in (tmp_path / "cut/metrics.jsonl").read_text().splitlines()]
    assert lines == [json.loads(s)["loss"] for s in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()]
    ours, theirs = (load_trained(tmp_path / r / "checkpoint.safetensors").weights for r in ("cut", "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert resumed["loss"] == whole["loss"]
    with pytest.raises(TrainingError, match="a run with another adaptation"):
        finetune(task, replace(start, adaptation=Adaptation("frozen")), samples, tmp_path / "cut", resume=True)


def test_a_checkpoint_of_another_task(spleen, start, tmp_path, dataset):
    task, data = spleen
    task = task.with_recipe(steps=1)
    samples = CaseWindows(prepared(task, data, tmp_path)[0], task)
    finetune(task, start, samples, tmp_path / "run")
    trained = load_trained(tmp_path / "run/checkpoint.safetensors")
    with pytest.raises(CheckpointError, match=r"structures \{1: 'spleen'\}: msd_liver expects"):
        check_fits(open_task("msd_liver", data), trained)
    with pytest.raises(CheckpointError, match="expected a classifier"):
        check_fits(open_task("medmnist_organ", data), trained)


def test_plan_of_an_nnunet_data_set(dataset):
    data = dataset("nnunet")
    task = open_task("nnunet", data)
    task = planned(task, find_split(task, data, 0).training)
    assert task.preprocessing.spacing_mm == (2.0, 2.0, 2.5)
    assert task.window == (32, 48, 32)  # of (30, 34, 32) voxels (S, A, R)
    low, high = task.preprocessing.ct_window_hu
    # CT levels of labels 1 and 2 are 60 + 37 and 60 + 74, noise 4
    assert 80 < low < 97 and 134 < high < 150


def test_unknown_task(tmp_path):
    with pytest.raises(TrainingError, match="task 'lung': expected one of brats2021, btcv"):
        open_task("lung", tmp_path)
