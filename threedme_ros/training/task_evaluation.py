"""`threedme evaluate TASK`: a trained network on the held-out cases of a task, through the `Segmenter` robots use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from threedme_ros.inference.engines import EngineError
from threedme_ros.inference.segmenter import Segmenter
from threedme_ros.model.checkpoint import Checkpoint, CheckpointError
from threedme_ros.model.classifier import Classifier, ClassifierCheckpoint
from threedme_ros.model.trained import Trained
from threedme_ros.volume import Volume, VolumeError

from .class_metrics import accuracy, auc
from .datasets.cases import DatasetError, Split
from .datasets.medmnist3d import LabelledImages
from .task_cache import read_case
from .task_pictures import draw_image, draw_segmentation
from .task_samples import to_input
from .task_scores import TargetScore, score_targets, shown_mean, summarise
from .task_table import ClassificationTask, SegmentationTask, Task
from .volume_cache import BadCase

BATCH = 8
Progress = Callable[[Iterator, int], Iterator]


@dataclass(frozen=True, eq=False)
class _Seen:
    name: str
    dice: float
    image: Volume
    truth: Volume
    predicted: Volume


def check_fits(task: Task, trained: Trained) -> None:
    """CheckpointError unless ``trained`` was made for what ``task`` scores."""
    if isinstance(task, ClassificationTask):
        if not isinstance(trained, ClassifierCheckpoint):
            raise CheckpointError(f"a segmentation checkpoint for {task.name}: expected a classifier")
        if trained.classes != task.classes:
            raise CheckpointError(f"classes {trained.classes}: {task.name} expects {task.classes}")
        return
    if not isinstance(trained, Checkpoint):
        raise CheckpointError(f"a classifier for {task.name}: expected a segmentation checkpoint")
    found, expected = ({s.id: s.name for s in table} for table in (trained.anatomy, task.anatomy))
    if found != expected:
        raise CheckpointError(f"structures {found}: {task.name} expects {expected}")
    if trained.config.in_channels != task.in_channels:
        raise CheckpointError(
            f"{trained.config.in_channels} channels: {task.name} has {task.in_channels}: {', '.join(task.channels)}"
        )


def evaluate_segmentation(
    task: SegmentationTask,
    split: Split,
    segmenter: Segmenter,
    output: Path,
    *,
    skip_bad_cases: bool = False,
    progress: Progress = lambda items, total: items,
) -> dict:
    """Scores of the held-out cases at full resolution, and pictures of the worst and the best in ``output``.

    A case that cannot be read or segmented is an error that names it, unless ``skip_bad_cases``. DatasetError.
    """
    scores: dict[str, dict[str, TargetScore]] = {}
    bad: list[BadCase] = []
    worst = best = None
    for case in progress(iter(split.test), len(split.test)):
        try:
            images, truth = read_case(case, task)
            predicted = segmenter.segment(images).labels
        except (VolumeError, DatasetError, EngineError) as error:
            if not skip_bad_cases:
                raise DatasetError(f"case {case.name}: {error}") from error
            bad.append(BadCase(case.name, str(error)))
            continue
        scores[case.name] = score_targets(
            predicted.voxels, truth.voxels, task.targets, truth.spacing_mm, task.nsd_tolerance_mm
        )
        seen = _Seen(case.name, shown_mean(scores[case.name]), images[0], truth, predicted)
        if np.isfinite(seen.dice):
            worst = seen if worst is None or seen.dice < worst.dice else worst
            best = seen if best is None or seen.dice > best.dice else best
    if not scores:
        raise DatasetError(f"none of {len(bad)} held-out cases can be used; the first, {bad[0].name}: {bad[0].reason}")
    for kind, seen in (("worst", worst), ("best", best)):
        if seen:
            draw_segmentation(
                output / f"{kind}.png", seen.image, seen.truth, seen.predicted, task.anatomy,
                title=f"{task.name}: {kind} of {len(scores)} cases",
                subtitle=f"case {seen.name}, mean Dice {seen.dice:.3f}; demonstration only, not for clinical use",
            )  # fmt: skip
    targets = summarise(scores)
    means = [t["dice"] for t in targets.values() if t["dice"] is not None]
    return {
        "split": split.rule,
        "mean_dice": float(np.mean(means)) if means else None,
        "targets": targets,
        "worst": worst and worst.name,
        "best": best and best.name,
        "cases": {name: {t: asdict(s) for t, s in rows.items()} for name, rows in scores.items()},
        "skipped": [asdict(b) for b in bad],
    }


def class_scores(
    model: Classifier, images: LabelledImages, shape: tuple[int, int, int], device: str = "cpu"
) -> np.ndarray:
    """Softmax probabilities (N, K) float64."""
    model = model.to(device).eval()
    rows = []
    for first in range(0, len(images), BATCH):
        batch = [to_input(image, shape) for image in images.images[first : first + BATCH]]
        with torch.inference_mode():
            rows.append(model(torch.stack(batch).to(device)).double().softmax(dim=1).cpu())
    return torch.cat(rows).numpy()


def evaluate_classification(
    task: ClassificationTask,
    splits: dict[str, LabelledImages],
    trained: ClassifierCheckpoint,
    output: Path,
    device: str = "cpu",
) -> dict:
    """AUC and ACC on the official validation and test splits, and pictures of the worst and the best test image."""
    model, result = trained.build(), {}
    for split in ("val", "test"):
        images = splits[split]
        scores = class_scores(model, images, trained.input_shape, device)
        if not np.isfinite(scores).all():
            raise CheckpointError(f"{task.name}: the network's output is not finite")
        area = auc(images.labels, scores)
        result[split] = {
            "images": len(images),
            "auc": None if np.isnan(area) else area,
            "acc": accuracy(images.labels, scores),
            "missing_classes": sorted(set(range(task.num_classes)) - set(images.labels.tolist())),
        }
    sure = scores[np.arange(len(images)), images.labels]  # of the test split
    for kind, number in (("worst", int(sure.argmin())), ("best", int(sure.argmax()))):
        true, found = images.labels[number], int(scores[number].argmax())
        draw_image(
            output / f"{kind}.png",
            images.images[number],
            title=f"{task.name}: {kind} of {len(images)} test images",
            subtitle=f"image {number}: {task.classes[true]} (probability {sure[number]:.3f}), found "
            f"{task.classes[found]}; demonstration only, not for clinical use",
        )
        result[kind] = number
    result["split"] = "the official training, validation and test split"
    result["predictions"] = {"labels": images.labels.tolist(), "scores": scores.tolist()}
    return result
