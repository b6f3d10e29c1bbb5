"""Every task from its files on disk to its report, by the commands a person types."""

import json

import numpy as np
import pytest
import torch
import yaml
from sklearn.metrics import accuracy_score, roc_auc_score

import threedme_ros.pictures.figure
from threedme_ros.cli import main
from threedme_ros.inference.segmenter import Segmenter
from threedme_ros.model.trained import load_trained
from threedme_ros.share import share_path
from threedme_ros.training.task_cache import read_case
from threedme_ros.training.task_data import find_split, open_task
from threedme_ros.training.task_table import all_tasks

SEGMENTATION = ["brats2021", "btcv", "msd_hippocampus", "msd_liver", "msd_pancreas", "msd_spleen"]
CLASSIFICATION = [f"medmnist_{n}" for n in ("adrenal", "fracture", "nodule", "organ", "synapse", "vessel")]
SMALL = {"window": [32, 32, 32], "input_shape": [32, 32, 32]}
RECIPE = {
    "steps": 16, "batch_size": 1, "learning_rate": 2e-2, "ema_decay": 0.5, "precision": "fp32", "workers": 0,
    "acquisition": 0.0, "warp": {"share": 0.0},
}  # fmt: skip


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(threedme_ros.pictures.figure, "DPI", 30)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def small_task(name: str, folder, **recipe) -> str:
    """The shipped YAML with a small input and a short recipe; its path."""
    document = yaml.safe_load(share_path(f"config/tasks/{name}.yaml").read_text())
    document |= {key: value for key, value in SMALL.items() if key in document}
    document["recipe"] = RECIPE | recipe
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(document))
    return str(path)


def run(*arguments) -> None:
    assert main([str(a) for a in arguments]) == 0


def test_the_twelve_tasks_are_there(capsys):
    assert [t.name for t in all_tasks()] == SEGMENTATION + CLASSIFICATION
    run("tasks")
    printed = capsys.readouterr().out
    for task in all_tasks():
        assert f"{task.name}: " in printed
        assert all(anchor.source in printed for anchor in task.anchors)


@pytest.mark.parametrize("name", SEGMENTATION)
def test_segmentation_task_end_to_end(name, dataset, tiny_foundation, tmp_path, capsys):
    steps = 60 if name == "btcv" else 16  # until something is found
    task, data, runs = small_task(name, tmp_path, steps=steps), dataset(name), tmp_path / "run"
    run("finetune", task, "--data", data, "--output", runs, "--foundation", tiny_foundation)
    assert "parameters (" in capsys.readouterr().out  # the share that was trained
    adapter = ["--foundation", tiny_foundation, "--adapter", runs / "adapter.safetensors"]
    run("evaluate", task, "--data", data, *adapter, "--engine", "torch", "--output", tmp_path / "report")
    report = json.loads((tmp_path / "report/report.json").read_text())
    assert report["task"] == name and len(report["cases"]) == 1
    assert (tmp_path / "report/worst.png").stat().st_size > 1000
    assert (tmp_path / "report/best.png").stat().st_size > 1000
    text = (tmp_path / "report/report.md").read_text()
    assert all(target in text for target in report["targets"]) and "never for clinical use" in text
    assert_equal_to_monai(report, task, data, load_trained(foundation=adapter[1], adapter=adapter[3]))


def assert_equal_to_monai(report, name, data, trained) -> None:
    from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice

    task = open_task(name, data)
    (case,) = find_split(task, data, 0).test
    images, truth = read_case(case, task)
    predicted = Segmenter(trained, engine="torch", modality=task.modalities).segment(images).labels
    found = 0
    for target, ids in task.targets.items():
        masks = [torch.from_numpy(np.isin(v.voxels, ids))[None, None].float() for v in (predicted, truth)]
        ours = report["cases"][case.name][target]
        assert ours["dice"] == pytest.approx(compute_dice(*masks).item(), abs=1e-6)
        if not masks[0].any():
            assert ours["hd95_mm"] is None and ours["nsd"] == 0
            continue
        found += 1
        spacing = list(truth.spacing_mm)
        hd95 = compute_hausdorff_distance(*masks, include_background=True, percentile=95, spacing=spacing).item()
        nsd = compute_surface_dice(*masks, [task.nsd_tolerance_mm], include_background=True, spacing=spacing).item()
        assert ours["hd95_mm"] == pytest.approx(hd95, abs=1e-4)
        assert ours["nsd"] == pytest.approx(nsd, abs=1e-6)
        assert report["targets"][target]["dice"] == pytest.approx(ours["dice"])
    assert found, "a network that found nothing proves nothing"


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_classification_task_end_to_end(name, dataset, tiny_foundation, tmp_path):
    task, data, runs = small_task(name, tmp_path, batch_size=4, steps=4), dataset(name), tmp_path / "run"
    run("finetune", task, "--data", data, "--output", runs, "--foundation", tiny_foundation)
    checkpoint = runs / "checkpoint.safetensors"
    run("evaluate", task, "--data", data, "--checkpoint", checkpoint, "--output", tmp_path / "report")
    report = json.loads((tmp_path / "report/report.json").read_text())
    labels = np.array(report["predictions"]["labels"])
    scores = np.array(report["predictions"]["scores"])
    if scores.shape[1] == 2:
        area, hits = roc_auc_score(labels, scores[:, 1]), accuracy_score(labels, scores[:, 1] > 0.5)
    else:
        area = np.mean([roc_auc_score(labels == k, scores[:, k]) for k in range(scores.shape[1])])
        hits = accuracy_score(labels, scores.argmax(axis=1))
    assert report["test"]["auc"] == pytest.approx(area, abs=1e-9)
    assert report["test"]["acc"] == pytest.approx(hits)
    assert (tmp_path / "report/worst.png").is_file() and (tmp_path / "report/best.png").is_file()
    assert "| test |" in (tmp_path / "report/report.md").read_text()


def test_any_nnunet_data_set_is_a_thirteenth_task(dataset, tiny_foundation, tmp_path, capsys):
    data, runs = dataset("nnunet"), tmp_path / "run"
    settings = ["--steps", 2, "--batch-size", 1, "--workers", 0, "--precision", "fp32"]
    run("finetune", "nnunet", "--data", data, "--output", runs, "--foundation", tiny_foundation, *settings)
    assert "planned: spacing (2.0, 2.0, 2.5) mm" in capsys.readouterr().out
    checkpoint = runs / "checkpoint.safetensors"
    run("evaluate", "nnunet", "--data", data, "--checkpoint", checkpoint, "--output", tmp_path / "report")
    report = json.loads((tmp_path / "report/report.json").read_text())
    assert set(report["targets"]) == {"liver", "lesion"}
    assert load_trained(checkpoint).provenance["task"]["channels"] == ["CT", "PET"]
