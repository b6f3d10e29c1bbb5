"""Supervised training on the sample patients: ``python -m threedme_ros.training.train``, `threedme train-demo`.

One step is one window. The budget is time (or a number of steps); the learning rate follows the share of it that is
spent, so that a run always ends with a rate of 0. The product is the moving average of the weights, in fp16.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from threedme_ros.anatomy import Anatomy
from threedme_ros.model.config import Preprocessing
from threedme_ros.share import share_path

from .case import TrainingCase
from .clock import CLOCKS, Stopwatch
from .data import WindowStream
from .networks import load_network, network_names, save_network
from .pool import training_pool, validation_windows
from .tasks import Task, load_task
from .trainer import Trainer
from .validation import validate

MAX_STEPS = 2**30
PREVIEW_WINDOWS, PREVIEW_PHANTOMS = 24, 3
STATE_FILE, CHECKPOINT_FILE, LOG_FILE = "state.pt", "checkpoint.safetensors", "metrics.jsonl"


def run(
    task: Task,
    cases: Sequence[TrainingCase],
    anatomy: Anatomy,
    preprocessing: Preprocessing,
    folder: Path,
    *,
    initial: Path | None = None,
    max_steps: int | None = None,
    resume: bool = False,
    say: Callable[[str], None] = print,
) -> Path:
    """Train and write ``folder``/checkpoint.safetensors; returns its path.

    cases: the patients; the task's phantoms are made here, before the budget begins. initial: a checkpoint of the same
    network, whose weights it starts from (CheckpointError if they do not fit). max_steps: a budget in steps
    instead of minutes, which makes a run repeatable bit for bit. resume: go on from ``folder``/state.pt. On a
    non-finite loss the last good state and checkpoint stay, and TrainingError is raised.
    """
    folder.mkdir(parents=True, exist_ok=True)
    trainer = Trainer.create(task, anatomy.num_classes)
    started_from = load_network(initial) if initial else None
    if started_from is not None:
        trainer.start_from(started_from)
    if resume:
        trainer.load_state(folder / STATE_FILE)
    windows = validation_windows(task, cases, anatomy, preprocessing)
    pool = training_pool(task, cases, anatomy, preprocessing)
    stream = WindowStream(pool.cases, pool.weights, task.windows, task.seed, MAX_STEPS)
    left = Subset(stream, range(trainer.step, MAX_STEPS))
    loader = DataLoader(
        left, batch_size=1, num_workers=task.workers, prefetch_factor=6 if task.workers else None,
        worker_init_fn=_one_thread,
    )  # fmt: skip
    batches = iter(loader)
    losses: list[float] = []
    waited, resumed_at_s = 0.0, trainer.wall_s
    bar = tqdm(total=100, unit="%", bar_format="{l_bar}{bar}| {elapsed}<{remaining} {postfix}", mininterval=5)
    logged_step, logged_s = trainer.step, trainer.elapsed_s

    def checkpoint_and_log() -> None:
        report = validate(trainer.average.model, cases, windows, anatomy.num_classes)
        report |= {"step": trainer.step, "minutes": round(trainer.elapsed_s / 60, 2), "loss": float(np.mean(losses))}
        report |= {"wall_minutes": round(trainer.wall_s / 60, 2)}
        report["data_share"] = round(waited / max(trainer.wall_s - resumed_at_s, 1e-9), 3)
        with (folder / LOG_FILE).open("a") as log:
            log.write(json.dumps(report) + "\n")
        dice = ", ".join(f"{name} {value:.3f}" for name, value in report["dice"].items())
        say(f"step {trainer.step}, {report['minutes']} min: loss {report['loss']:.3f}, Dice {dice}")
        trainer.save_state(folder / STATE_FILE)
        provenance = _provenance(task, cases, trainer, report)
        provenance["initial"] = started_from and {"checkpoint": started_from.hash, **started_from.provenance}
        save_network(folder / CHECKPOINT_FILE, trainer.average.model, anatomy, preprocessing, provenance)

    watch = Stopwatch(task.clock)
    while True:
        spent = trainer.step / max_steps if max_steps else trainer.elapsed_s / (60 * task.minutes)
        if spent >= 1:
            break
        before = time.monotonic()
        image, labels = next(batches)
        waited += time.monotonic() - before
        losses = [*losses[-99:], trainer.train_step(image, labels, spent)]
        on_clock, on_wall = watch.lap()
        trainer.elapsed_s, trainer.wall_s = trainer.elapsed_s + on_clock, trainer.wall_s + on_wall
        bar.n = round(100 * spent, 1)
        bar.set_postfix_str(f"step {trainer.step} loss {np.mean(losses):.3f}", refresh=False)
        bar.update(0)
        if trainer.elapsed_s - logged_s > 60 * task.validate_minutes:
            checkpoint_and_log()
            logged_step, logged_s = trainer.step, trainer.elapsed_s
            watch.lap()  # validation is not charged to the budget
    bar.close()
    if trainer.step > logged_step:
        checkpoint_and_log()
    return folder / CHECKPOINT_FILE


def preview(
    task: Task, cases: Sequence[TrainingCase], anatomy: Anatomy, preprocessing: Preprocessing, path: Path
) -> None:
    """A picture of `PREVIEW_WINDOWS` windows as the task draws them, from at most `PREVIEW_PHANTOMS` phantoms."""
    from .window_pictures import draw_windows

    few = replace(task.phantoms, count=min(task.phantoms.count, PREVIEW_PHANTOMS))
    pool = training_pool(replace(task, phantoms=few), cases, anatomy, preprocessing)
    stream = WindowStream(pool.cases, pool.weights, task.windows, task.seed, PREVIEW_WINDOWS)
    names = [stream.name(i) for i in range(len(stream))]
    windows = [stream[i] for i in range(len(stream))]
    about = f"task {task.name}, seed {task.seed}: voxels (D x H x W) of {preprocessing.spacing_mm[0]:g} mm"
    draw_windows(path, windows, anatomy, names, title="Training windows", subtitle=about)


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
        "wall_minutes": round(trainer.wall_s / 60, 2),
        "threads": torch.get_num_threads(),
        "training_dice": report["dice"],
        "revision": git.stdout.strip() or None,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "torch": torch.__version__,
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", type=Path, default=None, help="task YAML (default: config/tasks/demo_abdomen.yaml)")
    parser.add_argument("--output", type=Path, default=Path("runs/demo"), help="folder of the run (default: runs/demo)")
    parser.add_argument("--initial", type=Path, default=None, help="a checkpoint whose weights it starts from")
    parser.add_argument("--model", choices=network_names(), default=None, help="overrides the task's")
    parser.add_argument("--minutes", type=float, default=None, help="budget on the clock; overrides the task's")
    parser.add_argument("--clock", choices=sorted(CLOCKS), default=None, help="overrides the task's")
    parser.add_argument("--threads", type=int, default=0, help="torch's, in the process that trains (default: its own)")
    parser.add_argument("--steps", type=int, default=None, help="budget in steps instead of minutes (repeatable)")
    parser.add_argument("--seed", type=int, default=None, help="overrides the task's")
    parser.add_argument("--workers", type=int, default=None, help="data processes; 0 draws windows between steps")
    parser.add_argument("--resume", action="store_true", help="go on from the state in the output folder")
    parser.add_argument("--preview", type=Path, default=None, help="draw windows of the training there, and stop")


def main(arguments: argparse.Namespace) -> int:
    """Run from parsed arguments; 0, or 2 after a one-line error."""
    from threedme_ros.samples import SampleError

    from .sample_cases import load_training_cases

    try:
        torch.set_flush_denormal(True)  # they are ten times slower than zero
        path = arguments.task or share_path("config/tasks/demo_abdomen.yaml")
        if arguments.threads:
            torch.set_num_threads(arguments.threads)
        overrides = {key: getattr(arguments, key) for key in ("model", "minutes", "clock", "seed", "workers")}
        task = load_task(path, **overrides)
        anatomy = Anatomy.from_yaml(share_path(task.anatomy))
        preprocessing = Preprocessing()
        cases = load_training_cases(list(task.cases), anatomy, preprocessing)
        for case in cases:
            print(f"case {case.name}: {tuple(case.image.shape)} voxels (D, H, W), {len(case.tissues)} tissues")
        if arguments.preview:
            preview(task, cases, anatomy, preprocessing, arguments.preview)
            print(f"preview: {arguments.preview}")
            return 0
        checkpoint = run(
            task, cases, anatomy, preprocessing, arguments.output, initial=arguments.initial,
            max_steps=arguments.steps, resume=arguments.resume, say=tqdm.write,
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
