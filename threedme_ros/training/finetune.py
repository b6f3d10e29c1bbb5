"""Adapting a foundation to a task: `threedme finetune`, or `finetune` as a function.

A run is a pure function of (task, foundation, cases, samples a step), as pretraining is: what is drawn depends on the
number of the step only, and the state holds everything else.
"""

from __future__ import annotations

import copy
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from threedme_ros.model.adapters import Adaptation, adapted_model
from threedme_ros.model.config import ModelConfig
from threedme_ros.model.foundation import Foundation
from threedme_ros.model.layers import freeze_norms, space_to_depth

from .crops import RankBatches
from .distributed import launch_fabric
from .errors import TrainingError
from .fabric_trainer import FabricTrainer
from .losses import dice_cross_entropy, region_dice
from .precision import keep_norms_in_fp32
from .products import write_products
from .run_folder import RunFolder, RunWriter
from .task_samples import CaseWindows, ImageSamples
from .task_table import SegmentationTask, Task
from .trainer import learning_rate

if TYPE_CHECKING:
    from lightning.fabric import Fabric

FREE_TO_CHANGE = ("workers", "save_every", "batch_size", "accumulate")
Samples = CaseWindows | ImageSamples


@dataclass(frozen=True)
class Start:
    """What a run begins from. foundation: None for random weights, then of ``size``."""

    foundation: Foundation | None
    adaptation: Adaptation
    size: str = "small"

    def build(self, task: Task) -> tuple[nn.Module, bool]:
        """The network to train, and whether its first layer is new. CheckpointError, ValueError."""
        torch.manual_seed(task.recipe.seed)
        base = ModelConfig.of_size(self.size, 2) if self.foundation is None else self.foundation.config
        config = replace(base, num_classes=task.num_classes, in_channels=task.in_channels)
        new_stem = self.foundation is not None and base.in_channels != task.in_channels
        return adapted_model(task.kind, config, self.foundation, self.adaptation, new_stem), new_stem


class _Forward(nn.Module):
    """The network as Fabric calls it: half-resolution logits of voxels, or logits of classes."""

    def __init__(self, model: nn.Module, kind: str) -> None:
        super().__init__()
        self.model, self.kind = model, kind

    def forward(self, image: Tensor) -> Tensor:
        return self.model.half_logits(image) if self.kind == "segmentation" else self.model(image)


def task_loss(task: Task) -> Callable[[Tensor, Tensor], Tensor]:
    """(logits, target) -> loss: Dice of labels (and of regions, where a task has them) + cross entropy."""
    if not isinstance(task, SegmentationTask):
        return lambda logits, target: F.cross_entropy(logits.float(), target)
    regions = tuple(task.regions.values())

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        # (B, 1, D, H, W) -> (B, 8, D/2, H/2, W/2), as the logits' sub-voxels
        labels = space_to_depth(labels[:, None])
        total = dice_cross_entropy(logits, labels)
        return total + region_dice(logits, labels, regions) if regions else total

    return loss


class FineTuner(FabricTrainer):
    """A run in memory: network, moving average, optimiser of what is trained, and the number of the next step."""

    def __init__(self, task: Task, start: Start, fabric: Fabric) -> None:
        super().__init__(fabric)
        self.task, self.start = task, start
        self.model, self.new_stem = start.build(task)
        self.model.to(memory_format=torch.channels_last_3d)
        if fabric.device.type == "cpu":
            keep_norms_in_fp32(self.model)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": task.recipe.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimiser = torch.optim.AdamW(groups, lr=task.recipe.learning_rate, betas=(0.9, 0.98), foreach=True)
        self.loss = task_loss(task)
        self._set_up(_Forward(self.model, task.kind), optimiser, task.recipe.ema_decay)

    def train_step(self, batches: Iterator) -> dict:
        """One optimiser step on ``accumulate`` micro-batches; returns loss, gradient norm and learning rate.

        Raises TrainingError, on every rank alike, if one is not finite; the weights are then those of the step before.
        """
        recipe, fabric = self.task.recipe, self.fabric
        progress = self.step / recipe.steps
        rate = learning_rate(progress, recipe.learning_rate, recipe.warm_up)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.start.adaptation.train_mode(self.model)
        if progress >= recipe.freeze_norms:
            freeze_norms(self.model)
        self.optimiser.zero_grad(set_to_none=True)
        total = torch.zeros((), device=fabric.device)
        for micro in range(recipe.accumulate):
            image, target = fabric.to_device(next(batches))
            with fabric.no_backward_sync(self._forward, enabled=micro < recipe.accumulate - 1):
                loss = self.loss(self._forward(image), target)
                fabric.backward(loss / recipe.accumulate)
            total += loss.detach() / recipe.accumulate
        return self._finish_step(total, rate, recipe.clip_norm)


def finetune(
    task: Task,
    start: Start,
    samples: Samples,
    output: str | Path,
    *,
    fabric: Fabric | None = None,
    resume: bool = False,
    about: dict | None = None,
) -> dict:
    """Train ``task`` from ``start`` in the folder ``output``; every rank calls it, rank 0 writes. Returns the summary.

    Writes adapter.safetensors (what was trained; not for "full"), checkpoint.safetensors (the merged whole) and
    finetune.json. resume: go on from ``output``/state.pt, or begin where there is none. about: more for provenance and
    summary (cases, split, skipped). TrainingError: the folder holds another run, or a loss is not finite (the last
    state stays). OSError: the disk is full (the last state stays).
    """
    began = time.monotonic()
    fabric = fabric or launch_fabric(task.recipe.precision, "cpu")
    run, folder = FineTuner(task, start, fabric), RunFolder(output)
    step_samples = task.recipe.batch_size * task.recipe.accumulate * fabric.world_size
    identity = _identity(task, start, step_samples, about or {})
    _begin(run, folder, identity, resume)
    fabric.barrier()  # no rank may write before all have read
    writer = nullcontext()
    if fabric.is_global_zero:
        # two states, the old and the new, of weights, average and two moments; and the products
        folder.require_space(2 * 4 * 5 * sum(p.numel() for p in run.model.parameters()))
        writer = RunWriter(folder, run.step, task.recipe.steps)
    batches = iter(_loader(samples, task, run.step, fabric))
    summary = None
    with writer as record:
        for step in range(run.step, task.recipe.steps):
            line = _step(run, samples, step_samples, batches, folder)
            if record:
                record.record(step, line, line)
                if run.step % task.recipe.save_every == 0 and run.step < task.recipe.steps:
                    folder.write_state(identity | run.state())
        if record:
            folder.write_state(identity | run.state())
            figures = {"steps": run.step, "loss": record.final_loss(), "seconds": round(time.monotonic() - began, 1)}
            model = copy.deepcopy(run.average.model).cpu()
            for mine, its in zip(model.parameters(), run.model.parameters(), strict=True):
                mine.requires_grad_(its.requires_grad)  # an average itself trains nothing
            summary = write_products(
                folder.path, task, model, start.adaptation, start.foundation, run.new_stem, figures, about or {}
            )
    return fabric.broadcast(summary)


def _identity(task: Task, start: Start, step_samples: int, about: dict) -> dict:
    recipe = {k: v for k, v in asdict(task.recipe).items() if k not in FREE_TO_CHANGE}
    base = start.foundation.hash if start.foundation else f"random {start.size}"
    return {
        "task": task.name,
        "recipe": json.dumps(recipe),
        "foundation": base,
        "adaptation": json.dumps(asdict(start.adaptation)),
        "samples a step": step_samples,
        "cases": hashlib.sha256(json.dumps(about.get("cases", [])).encode()).hexdigest()[:16],
    }


def _begin(run: FineTuner, folder: RunFolder, identity: dict, resume: bool) -> None:
    """Load the folder's state, if any; TrainingError if it is there unasked for, or is of another run."""
    state = folder.read_state()
    if state is None:
        return
    if not resume:
        raise TrainingError(f"{folder.path} holds a run: go on with --resume, or name a new folder")
    other = [key for key, value in identity.items() if state.get(key) != value]
    if other:
        raise TrainingError(f"{folder.state}: a run with another {', '.join(other)}; name a new folder")
    try:
        run.load(state)
    except Exception as error:  # in a damaged state anything can lie anywhere
        raise TrainingError(f"{folder.state}: does not fit the network: {' '.join(str(error).split())}") from error


def _step(run: FineTuner, samples: Samples, step_samples: int, batches: Iterator, folder: RunFolder) -> dict:
    try:
        return run.train_step(batches)
    except TrainingError as error:
        names = sorted({samples.name(i) for i in range(run.step * step_samples, (run.step + 1) * step_samples)})
        kept = f"the last good state is {folder.state}" if folder.state.exists() else "no state was written yet"
        raise TrainingError(f"{error} (samples of {', '.join(names)}); {kept}") from error


def _loader(samples: Samples, task: Task, first_step: int, fabric: Fabric) -> DataLoader:
    recipe = task.recipe
    return DataLoader(
        samples,
        batch_sampler=RankBatches(
            first_step, recipe.steps, recipe.batch_size, recipe.accumulate, fabric.global_rank, fabric.world_size
        ),
        num_workers=recipe.workers,
        prefetch_factor=4 if recipe.workers else None,
        worker_init_fn=_one_thread,
        generator=torch.Generator(),  # or it would draw from the global one
        pin_memory=fabric.device.type == "cuda",
    )


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)
