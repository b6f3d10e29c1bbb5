"""What a finished run leaves behind: an adapter, the merged checkpoint, and a summary."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

import threedme_ros
from threedme_ros.model.adapters import Adaptation, Adapter, merge, save_adapter, trained_share
from threedme_ros.model.checkpoint import save_checkpoint
from threedme_ros.model.classifier import save_classifier
from threedme_ros.model.foundation import Foundation

from .task_table import SegmentationTask, Task

ADAPTER, CHECKPOINT, SUMMARY = "adapter.safetensors", "checkpoint.safetensors", "finetune.json"


def task_card(task: Task) -> dict:
    """What a network of ``task`` needs to be used, as plain values; it travels in every product."""
    card = {"name": task.name, "kind": task.kind}
    if isinstance(task, SegmentationTask):
        return card | {
            "channels": list(task.channels),
            "modalities": list(task.modalities),
            "anatomy": json.loads(task.anatomy.to_json()),
            "regions": {name: list(ids) for name, ids in task.regions.items()},
            "preprocessing": asdict(task.preprocessing),
        }
    return card | {"classes": list(task.classes), "input_shape": list(task.input_shape)}


def write_products(
    folder: Path,
    task: Task,
    model: nn.Module,
    adaptation: Adaptation,
    foundation: Foundation | None,
    new_stem: bool,
    figures: dict,
    about: dict,
) -> dict:
    """Write ``model`` (adapted, not merged) to ``folder``; returns the summary, also written as finetune.json.

    figures: of the run. about: of the data; its "cases" stay out of the products, for file names may be patients'.
    """
    trained, total = trained_share(model)
    figures = figures | {
        "foundation": foundation.hash if foundation else None,
        "adaptation": asdict(adaptation),
        "trained_parameters": trained,
        "parameters": total,
        "recipe": asdict(task.recipe),
        "version": threedme_ros.__version__,
        "torch": torch.__version__,
    }
    counts = {**about, "cases": len(about.get("cases", []))}
    provenance = {"task": task_card(task)} | figures | counts
    files = {}
    if adaptation.method != "full":
        adapter = Adapter(
            task.kind, foundation.hash, model.config, adaptation, new_stem, task_card(task), {}, "", provenance
        )
        files["adapter"] = (ADAPTER, save_adapter(folder / ADAPTER, model, adapter))
    model = copy.deepcopy(model)
    merge(model)
    if isinstance(task, SegmentationTask):
        key = save_checkpoint(folder / CHECKPOINT, model, task.anatomy, task.preprocessing, provenance)
    else:
        key = save_classifier(folder / CHECKPOINT, model, task.classes, task.input_shape, provenance)
    files["checkpoint"] = (CHECKPOINT, key)
    summary = {"name": task.name} | figures | about
    summary["files"] = {
        kind: {"path": name, "hash": h, "bytes": (folder / name).stat().st_size} for kind, (name, h) in files.items()
    }
    (folder / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n")
    return summary
