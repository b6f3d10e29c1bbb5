"""`threedme finetune`: a foundation, adapted to one task."""

from __future__ import annotations

import argparse
from pathlib import Path

from threedme_ros.share import DEMO_CHECKPOINT, share_path

NO_FOUNDATION = "none"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", help="a name that `threedme tasks` lists, nnunet, or a task's YAML file")
    parser.add_argument("--data", type=Path, required=True, help="the data set's folder, as its authors lay it out")
    parser.add_argument("--output", type=Path, help="the run (default: runs/TASK)")
    parser.add_argument("--foundation", help="a foundation, a checkpoint, or none (default: the shipped checkpoint)")
    parser.add_argument("--method", default="lora", help="frozen, lora or full (default: lora)")
    parser.add_argument("--rank", type=int, default=8, help="of the low-rank updates (default: 8)")
    parser.add_argument("--size", default="small", help="of a network without a foundation: small, base or large")
    parser.add_argument("--fold", type=int, default=0, help="the fold to hold out (default: 0)")
    parser.add_argument("--image-size", type=int, help="MedMNIST3D: 28 or 64 (default: the larger file there is)")
    parser.add_argument("--steps", type=int, help="optimiser steps; overrides the task's, like the six below")
    parser.add_argument("--batch-size", type=int, help="samples a process and micro-step")
    parser.add_argument("--accumulate", type=int, help="micro-steps a step")
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--workers", type=int, help="data processes of each training process")
    parser.add_argument("--save-every", type=int, help="steps between two states")
    parser.add_argument("--precision", help="bf16 or fp32; overrides the task's")
    parser.add_argument("--cache", type=Path, help="where prepared cases are kept (default: OUTPUT/prepared)")
    parser.add_argument("--skip-bad-cases", action="store_true", help="list and leave out what cannot be used")
    parser.add_argument("--check-only", action="store_true", help="read and check the whole data set, and stop")
    parser.add_argument("--resume", action="store_true", help="go on where the output folder's run stopped, if one is")
    parser.add_argument("--accelerator", default="auto", help="auto, cpu or cuda (default: auto)")
    parser.add_argument("--devices", type=int, help="processes on this machine (default: 1, or what torchrun started)")
    parser.add_argument("--nodes", type=int, default=1, help="machines, under SLURM (default: 1)")


def run(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from threedme_ros.model.adapters import Adaptation, load_base
    from threedme_ros.training.distributed import launch_fabric
    from threedme_ros.training.finetune import Start, finetune
    from threedme_ros.training.task_data import open_task

    adaptation = Adaptation(arguments.method, arguments.rank)
    task = open_task(arguments.task, arguments.data).with_recipe(
        steps=arguments.steps,
        batch_size=arguments.batch_size,
        accumulate=arguments.accumulate,
        learning_rate=arguments.learning_rate,
        seed=arguments.seed,
        workers=arguments.workers,
        save_every=arguments.save_every,
        precision=arguments.precision,
    )
    base = None
    if arguments.foundation != NO_FOUNDATION:
        base = load_base(arguments.foundation or share_path(DEMO_CHECKPOINT))
    start = Start(base, adaptation, arguments.size)
    start.build(task)  # what does not fit is said before any case is read
    output = arguments.output or Path("runs") / task.name
    fabric = launch_fabric(task.recipe.precision, arguments.accelerator, arguments.devices, arguments.nodes)
    say = tqdm.write if fabric.is_global_zero else lambda text: None
    prepare = _images if task.kind == "classification" else _cases
    task, samples, about = prepare(task, arguments, output, fabric, say)
    if arguments.check_only:
        say(f"{arguments.data}: fit for {task.name}")
        return 0
    summary = finetune(task, start, samples, output, fabric=fabric, resume=arguments.resume, about=about)
    share = summary["trained_parameters"] / summary["parameters"]
    say(f"trained {summary['trained_parameters']:,} of {summary['parameters']:,} parameters ({share:.1%})")
    for kind, file in summary["files"].items():
        say(f"{kind}: {output / file['path']} ({file['bytes'] / 1e6:.1f} MB, hash {file['hash']})")
    say(
        f"next: threedme evaluate {arguments.task} --data {arguments.data} --checkpoint {output}/checkpoint.safetensors"
    )
    return 0


def _images(task, arguments: argparse.Namespace, output: Path, fabric, say):
    from threedme_ros.training.datasets.medmnist3d import find_file, read_splits
    from threedme_ros.training.task_samples import ImageSamples

    file = find_file(arguments.data, task.flag, arguments.image_size)
    splits = read_splits(file, task.num_classes)
    counts = {name: len(images) for name, images in splits.items()}
    say(
        f"{file}: {', '.join(f'{n} {name}' for name, n in counts.items())} images of {splits['train'].images.shape[1:]}"
    )
    about = {"cases": [file.name, counts["train"]], "split": "official", "images": counts, "skipped": 0}
    return task, ImageSamples(splits["train"], task), about


def _cases(task, arguments: argparse.Namespace, output: Path, fabric, say):
    from functools import partial

    from threedme_ros.training.task_cache import prepare_cases
    from threedme_ros.training.task_data import NNUNET, find_split, planned
    from threedme_ros.training.task_samples import CaseWindows

    split = find_split(task, arguments.data, arguments.fold)
    if arguments.task == NNUNET:
        task = planned(task, split.training)
        say(f"planned: spacing {task.preprocessing.spacing_mm} mm (R, A, S), window {task.window} (D, H, W)")
    prepare = partial(
        prepare_cases,
        task=task,
        cache=arguments.cache or output / "prepared",
        skip_bad_cases=arguments.skip_bad_cases,
        workers=task.recipe.workers,
        start=fabric.global_rank / fabric.world_size,
        progress=partial(_bar, shown=fabric.is_global_zero),
    )
    good, bad = prepare(split.training)
    _, bad_held = prepare(split.test)  # found bad now, not after the training
    for case in bad + bad_held:
        say(f"skipped {case.name}: {case.reason}")
    say(f"{len(good)} training cases; {len(split.test) - len(bad_held)} held out: {split.rule}")
    about = {"cases": [[c.name, c.shape] for c in good], "split": split.rule, "skipped": len(bad) + len(bad_held)}
    return task, CaseWindows(good, task), about


def _bar(items, total: int, shown: bool):
    from tqdm import tqdm

    return tqdm(items, total=total, unit="case", desc="checking", disable=not shown)
