"""`threedme pretrain`: a foundation from unlabelled volumes."""

from __future__ import annotations

import argparse
from pathlib import Path

from threedme_ros.share import share_path

SAMPLE_KEYS = ("A", "B")
CACHE = "prepared"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument("--data", type=Path, help="a folder of NIfTI, NRRD, MetaImage files and DICOM folders, any depth")
    data.add_argument("--samples", action="store_true", help="the two public training patients instead")
    parser.add_argument("--output", type=Path, default=Path("runs/pretrain"), help="the run (default: runs/pretrain)")
    parser.add_argument("--task", type=Path, help="task YAML (default: config/tasks/pretrain.yaml)")
    parser.add_argument("--schedule", help="masking: progressive, fixed or uniform; overrides the task's")
    parser.add_argument("--steps", type=int, help="optimiser steps; overrides the task's, like the four below")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--batch-size", type=int, help="windows a process and micro-step")
    parser.add_argument("--accumulate", type=int, help="micro-steps a step")
    parser.add_argument("--workers", type=int, help="data processes of each training process")
    parser.add_argument("--save-every", type=int, help="steps between two states")
    parser.add_argument("--cache", type=Path, help="where prepared volumes are kept (default: OUTPUT/prepared)")
    parser.add_argument("--exclude", nargs="*", help="name patterns to pass over (default: label files and folders)")
    parser.add_argument("--skip-bad-cases", action="store_true", help="list and leave out what cannot be read")
    parser.add_argument("--resume", action="store_true", help="go on where the output folder's run stopped, if one is")
    parser.add_argument("--preview", type=Path, metavar="DIR", help="write DIR/masking.png when the run is done")
    parser.add_argument("--accelerator", default="auto", help="auto, cpu or cuda (default: auto)")
    parser.add_argument("--devices", type=int, help="processes on this machine (default: 1, or what torchrun started)")
    parser.add_argument("--nodes", type=int, default=1, help="machines, under SLURM (default: 1)")


def run(arguments: argparse.Namespace) -> int:
    from functools import partial

    from tqdm import tqdm

    from threedme_ros.training.distributed import launch_fabric
    from threedme_ros.training.pretrain import pretrain
    from threedme_ros.training.pretrain_task import load_pretrain_task
    from threedme_ros.training.volume_cache import LABEL_FOLDERS, find_volumes, prepare_volumes, sample_volumes

    task = load_pretrain_task(
        arguments.task or share_path("config/tasks/pretrain.yaml"),
        schedule=arguments.schedule,
        steps=arguments.steps,
        seed=arguments.seed,
        batch_size=arguments.batch_size,
        accumulate=arguments.accumulate,
        workers=arguments.workers,
        save_every=arguments.save_every,
    )
    if arguments.samples:
        found = sample_volumes(SAMPLE_KEYS)
    else:
        found = find_volumes(arguments.data, LABEL_FOLDERS if arguments.exclude is None else arguments.exclude)
    fabric = launch_fabric(task.precision, arguments.accelerator, arguments.devices, arguments.nodes)
    say = tqdm.write if fabric.is_global_zero else lambda text: None
    volumes, bad = prepare_volumes(
        found,
        arguments.cache or arguments.output / CACHE,
        task.preprocessing,
        modality=task.modality,
        skip_bad_cases=arguments.skip_bad_cases,
        workers=task.workers,
        start=fabric.global_rank * len(found) // fabric.world_size,
        progress=partial(_bar, shown=fabric.is_global_zero),
    )
    for case in bad:
        say(f"skipped {case.name}: {case.reason}")
    say(f"{len(volumes)} scans, {len(bad)} skipped; masking {task.masking.kind}; {fabric.world_size} processes")
    result = pretrain(
        task, volumes, arguments.output, fabric=fabric, resume=arguments.resume, preview=arguments.preview,
        skipped=len(bad),
    )  # fmt: skip
    for hardness, scores in result.exam.items():
        say(f"hardness {hardness}: " + ", ".join(f"{k} {v:.4f}" for k, v in scores.items() if v is not None))
    say(f"{result.foundation}: {result.steps} steps, loss {result.loss:.4f}, hash {result.hash}")
    return 0


def _bar(items, total: int, shown: bool):
    from tqdm import tqdm

    return tqdm(items, total=total, unit="scan", desc="preparing", disable=not shown)
