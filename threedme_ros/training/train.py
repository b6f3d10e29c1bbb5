"""Supervised training of 3DME on the sample patients: ``python -m threedme_ros.training.train``, `threedme train-demo`.

One step is one window. The budget is wall-clock (or a number of steps); the learning rate follows the share of it that
is spent, so that a run always ends with a rate of 0. The product is the moving average of the weights, in fp16.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from threedme_ros.anatomy import Anatomy
from threedme_ros.model.checkpoint import save_checkpoint
from threedme_ros.model.config import ModelConfig, Preprocessing
from threedme_ros.model.layers import freeze_norms, space_to_depth
from threedme_ros.model.threedme import ThreeDME
from threedme_ros.share import share_path

from .augment import PADDING
from .data import TrainingCase, TrainingError, WindowStream
from .losses import dice_cross_entropy
from .metrics import dice_scores, mean_dice, present
from .precision import autocast_for, keep_norms_in_fp32
from .tasks import Task, load_task

VALIDATION_SEED = 7_000_000
"""Added to a task's seed: the validation windows come from a stream that training never draws."""
VALIDATION_WINDOWS = 6
MAX_STEPS = 2**30
STATE_FILE, CHECKPOINT_FILE, LOG_FILE = "state.pt", "checkpoint.safetensors", "metrics.jsonl"


def learning_rate(progress: float, peak: float, warm_up: float) -> float:
    """Linear up to ``peak`` over the first ``warm_up`` of the budget, then a half cosine down to 0 at progress 1."""
    progress = min(max(progress, 0.0), 1.0)
    if progress < warm_up:
        return peak * progress / warm_up
    return peak * 0.5 * (1 + math.cos(math.pi * (progress - warm_up) / (1 - warm_up)))


class MovingAverage:
    """Exponential moving average of a model's weights; the decay starts low, so that the first steps are forgotten."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self.decay, self.steps = decay, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.steps += 1
        decay = min(self.decay, self.steps / (self.steps + 10))
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1 - decay)
        for mine, its in zip(self.model.buffers(), model.buffers(), strict=True):  # running statistics of the norms
            mine.copy_(its)


@dataclass
class Trainer:
    """A run in memory: model, optimiser, moving average, and how much of the budget is spent."""

    task: Task
    model: ThreeDME
    average: MovingAverage
    optimiser: torch.optim.Optimizer
    step: int = 0
    elapsed_s: float = 0.0

    @classmethod
    def create(cls, task: Task, num_classes: int, changes: Mapping | None = None) -> Trainer:
        """A new run. changes: fields of `ModelConfig` that differ from the task's size."""
        torch.manual_seed(task.seed)
        model = ThreeDME(ModelConfig.of_size(task.model, num_classes, **(changes or {}))).to(
            memory_format=torch.channels_last_3d
        )
        keep_norms_in_fp32(model)
        matrices = [p for p in model.parameters() if p.ndim > 1]
        vectors = [p for p in model.parameters() if p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": task.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        optimiser = torch.optim.AdamW(groups, lr=task.learning_rate, betas=(0.9, 0.98), foreach=True)
        return cls(task, model, MovingAverage(model, task.ema_decay), optimiser)

    def train_step(self, image: Tensor, labels: Tensor, progress: float) -> float:
        """One window batch (B, 1, D, H, W) and (B, D, H, W) uint8; returns the loss.

        Raises TrainingError with the step if the loss or a gradient is not finite; the weights are then unchanged.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(progress, self.task.learning_rate, self.task.warm_up)
        self.model.train()
        if progress >= self.task.freeze_norms:
            freeze_norms(self.model)
        self.optimiser.zero_grad(set_to_none=True)
        with autocast_for(image, self.task.precision):
            logits = self.model.half_logits(image)
        # (B, 1, D, H, W) -> (B, 8, D/2, H/2, W/2): the loss needs no full-resolution shuffle of the logits
        loss = dice_cross_entropy(logits, space_to_depth(labels[:, None]))
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.task.clip_norm)
        if not (math.isfinite(loss.item()) and math.isfinite(norm.item())):
            raise TrainingError(
                f"step {self.step}: loss {loss.item()}, gradient norm {norm.item()}: expected finite numbers"
            )
        self.optimiser.step()
        self.average.update(self.model)
        self.step += 1
        return loss.item()

    def save_state(self, path: Path) -> None:
        state = {
            "task": json.dumps(self.task.as_dict()),
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "model": self.model.state_dict(),
            "average": self.average.model.state_dict(),
            "average_steps": self.average.steps,
            "optimiser": self.optimiser.state_dict(),
        }
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        torch.save(state, temporary)
        temporary.replace(path)

    def load_state(self, path: Path) -> None:
        """Go on where ``path`` stopped; TrainingError if it cannot be read or belongs to another task."""
        try:
            state = torch.load(path, weights_only=True)
            task = json.loads(state["task"])
        except (OSError, EOFError, RuntimeError, KeyError, ValueError, UnpicklingError) as error:
            raise TrainingError(f"{path}: not a training state ({type(error).__name__})") from error
        mine = json.loads(json.dumps(self.task.as_dict()))
        changed = [key for key in mine if mine[key] != task.get(key) and key not in ("minutes", "workers")]
        if changed:
            raise TrainingError(f"{path}: from a task with another {', '.join(changed)}; start in a new folder")
        self.model.load_state_dict(state["model"])
        self.average.model.load_state_dict(state["average"])
        self.average.steps = state["average_steps"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.elapsed_s = state["step"], state["elapsed_s"]


def whole_volume_labels(model: ThreeDME, image: Tensor) -> Tensor:
    """Labels (D, H, W) int64 of a whole volume (D, H, W), padded at its ends to the network's stride."""
    stride = ModelConfig.STRIDE
    pad = [p for n in reversed(image.shape) for p in (0, -n % stride)]
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        labels, _ = model.predict(F.pad(image[None, None], pad, value=PADDING))
    d, h, w = image.shape
    return labels[0, :d, :h, :w]


def validate(model: ThreeDME, cases: Sequence[TrainingCase], windows: Sequence, num_classes: int) -> dict:
    """Mean Dice on the training volumes and on the fixed synthesised windows; per-structure Dice of the volumes."""
    report: dict = {"dice": {}, "structures": {}}
    for case in cases:
        predicted, truth = whole_volume_labels(model, case.image).numpy(), case.labels.numpy()
        scores = dice_scores(predicted, truth, num_classes)
        report["dice"][case.name] = mean_dice(predicted, truth, num_classes)
        report["structures"][case.name] = {int(c): round(float(scores[c]), 3) for c in present(truth, num_classes)}
    synthetic = [
        mean_dice(whole_volume_labels(model, image[0]).numpy(), labels.numpy(), num_classes)
        for image, labels in windows
    ]
    if synthetic:
        report["dice"]["synthetic"] = float(np.nanmean(synthetic))
    return report


def run(
    task: Task,
    cases: Sequence[TrainingCase],
    anatomy: Anatomy,
    preprocessing: Preprocessing,
    folder: Path,
    *,
    max_steps: int | None = None,
    resume: bool = False,
    say: Callable[[str], None] = print,
) -> Path:
    """Train and write ``folder``/checkpoint.safetensors; returns its path.

    max_steps: a budget in steps instead of minutes, which makes a run repeatable bit for bit. resume: go on from
    ``folder``/state.pt. On a non-finite loss the last good state and checkpoint stay, and TrainingError is raised.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = [task.cases.get(case.name, 1.0) for case in cases]
    trainer = Trainer.create(task, anatomy.num_classes)
    if resume:
        trainer.load_state(folder / STATE_FILE)
    stream = WindowStream(cases, weights, task.windows, task.seed, MAX_STEPS)
    held = WindowStream(cases, weights, task.windows, task.seed + VALIDATION_SEED, VALIDATION_WINDOWS)
    windows = [held[i] for i in range(len(held))]
    left = Subset(stream, range(trainer.step, MAX_STEPS))
    loader = DataLoader(
        left, batch_size=1, num_workers=task.workers, prefetch_factor=6 if task.workers else None,
        worker_init_fn=_one_thread,
    )  # fmt: skip
    batches = iter(loader)
    losses: list[float] = []
    waited = 0.0
    bar = tqdm(total=100, unit="%", bar_format="{l_bar}{bar}| {elapsed}<{remaining} {postfix}", mininterval=5)
    last = validated = time.monotonic()

    def checkpoint_and_log() -> None:
        report = validate(trainer.average.model, cases, windows, anatomy.num_classes)
        report |= {"step": trainer.step, "minutes": round(trainer.elapsed_s / 60, 2), "loss": float(np.mean(losses))}
        report["data_share"] = round(waited / max(trainer.elapsed_s, 1e-9), 3)
        with (folder / LOG_FILE).open("a") as log:
            log.write(json.dumps(report) + "\n")
        dice = ", ".join(f"{name} {value:.3f}" for name, value in report["dice"].items())
        say(f"step {trainer.step}, {report['minutes']} min: loss {report['loss']:.3f}, Dice {dice}")
        trainer.save_state(folder / STATE_FILE)
        provenance = _provenance(task, cases, trainer, report)
        save_checkpoint(folder / CHECKPOINT_FILE, trainer.average.model, anatomy, preprocessing, provenance)

    while True:
        spent = trainer.step / max_steps if max_steps else trainer.elapsed_s / (60 * task.minutes)
        if spent >= 1:
            break
        before = time.monotonic()
        image, labels = next(batches)
        waited += time.monotonic() - before
        losses = [*losses[-99:], trainer.train_step(image, labels, spent)]
        now = time.monotonic()
        trainer.elapsed_s += now - last
        last = now
        bar.n = round(100 * spent, 1)
        bar.set_postfix_str(f"step {trainer.step} loss {np.mean(losses):.3f}", refresh=False)
        bar.update(0)
        if now - validated > 60 * task.validate_minutes:
            checkpoint_and_log()
            validated = last = time.monotonic()  # validation is not charged to the budget
    bar.close()
    if losses:
        checkpoint_and_log()
    return folder / CHECKPOINT_FILE


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def _provenance(task: Task, cases: Sequence[TrainingCase], trainer: Trainer, report: dict) -> dict:
    git = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return {
        "task": task.as_dict(),
        "data": [case.name for case in cases],
        "labels": "TotalSegmentator's output, not a human's",
        "steps": trainer.step,
        "minutes": round(trainer.elapsed_s / 60, 2),
        "training_dice": report["dice"],
        "revision": git.stdout.strip() or None,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "torch": torch.__version__,
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", type=Path, default=None, help="task YAML (default: config/tasks/demo_abdomen.yaml)")
    parser.add_argument("--output", type=Path, default=Path("runs/demo"), help="folder of the run (default: runs/demo)")
    parser.add_argument("--minutes", type=float, default=None, help="wall-clock budget; overrides the task's")
    parser.add_argument("--steps", type=int, default=None, help="budget in steps instead of minutes (repeatable)")
    parser.add_argument("--seed", type=int, default=None, help="overrides the task's")
    parser.add_argument("--workers", type=int, default=None, help="data processes; 0 draws windows between steps")
    parser.add_argument("--resume", action="store_true", help="go on from the state in the output folder")


def main(arguments: argparse.Namespace) -> int:
    """Run from parsed arguments; 0, or 2 after a one-line error."""
    from threedme_ros.samples import SampleError

    from .sample_cases import load_training_cases

    try:
        torch.set_flush_denormal(True)  # they are ten times slower than zero
        path = arguments.task or share_path("config/tasks/demo_abdomen.yaml")
        task = load_task(path, minutes=arguments.minutes, seed=arguments.seed, workers=arguments.workers)
        anatomy = Anatomy.from_yaml(share_path(task.anatomy))
        preprocessing = Preprocessing()
        cases = load_training_cases(list(task.cases), anatomy, preprocessing)
        for case in cases:
            print(f"case {case.name}: {tuple(case.image.shape)} voxels (D, H, W), {len(case.tissues)} tissues")
        checkpoint = run(
            task, cases, anatomy, preprocessing, arguments.output, max_steps=arguments.steps, resume=arguments.resume,
            say=tqdm.write,
        )  # fmt: skip
    except (ValueError, OSError, SampleError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"checkpoint: {checkpoint}")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m threedme_ros.training.train", description=__doc__)
    add_arguments(parser)
    sys.exit(main(parser.parse_args()))
