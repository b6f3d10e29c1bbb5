"""`threedme experiment`: masking schedules, few labels, the encoder's parts, and networks on patients never seen."""

from __future__ import annotations

import argparse
from pathlib import Path

NAMES = ("masking", "few-labels", "ablation")
GENERALISATION = "generalisation"
SEEDS = (0, 1, 2)
FIRST_RECIPE, RECIPE = "config/tasks/phantoms.yaml", "config/tasks/demo_abdomen.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "experiment", choices=(*NAMES, GENERALISATION), help="what to compare; arms that two experiments share run once"
    )
    parser.add_argument("--output", type=Path, help="a JSON file a run, and NAME.md (resumable); default: runs/...")
    parser.add_argument(
        "--document", type=Path, help="also put the tables into this file, between <!-- NAME --> and <!-- /NAME -->"
    )
    steps = parser.add_argument_group("masking, few-labels, ablation")
    steps.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="at least three (default: 0 1 2)")
    steps.add_argument("--pretrain-steps", type=int, help="self-supervised steps of one window each")
    steps.add_argument("--train-steps", type=int, help="supervised steps of one window each")
    runs = parser.add_argument_group(GENERALISATION)
    runs.add_argument(
        "--only", nargs="+", metavar="RUN", help="NETWORK-SEED-PATIENT or NETWORK-SEED-phantoms; default: all"
    )
    runs.add_argument("--task", type=Path, help=f"the recipe of every run (default: {RECIPE})")
    runs.add_argument("--first-task", type=Path, help=f"the recipe of its first stage (default: {FIRST_RECIPE})")
    runs.add_argument("--minutes", type=float, help="budget of every run; overrides the recipe's")
    runs.add_argument("--first-minutes", type=float, help="budget of its first stage; overrides the recipe's")
    runs.add_argument("--clock", choices=("cpu", "wall"), default="cpu", help="what they are counted in (default: cpu)")
    runs.add_argument("--threads", type=int, default=1, help="of the process that trains (default: 1)")
    runs.add_argument("--train-only", action="store_true", help="evaluate nothing, write no table")


def run(arguments: argparse.Namespace) -> int:
    compare = _generalisation if arguments.experiment == GENERALISATION else _over_seeds
    return compare(arguments)


def _over_seeds(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from threedme_ros.samples import SampleError
    from threedme_ros.training.experiments.arms import EXPERIMENTS
    from threedme_ros.training.experiments.budget import Budget
    from threedme_ros.training.experiments.material import sample_material
    from threedme_ros.training.experiments.run import run_experiment
    from threedme_ros.training.experiments.table import insert

    output = arguments.output or Path("runs/experiments")
    given = {"pretrain_steps": arguments.pretrain_steps, "train_steps": arguments.train_steps}
    budget = Budget(seeds=tuple(arguments.seeds), **{k: v for k, v in given.items() if v is not None})
    try:
        material = sample_material(output / "data", budget.preprocessing)
    except SampleError as error:
        raise ValueError(str(error)) from error
    text = run_experiment(EXPERIMENTS[arguments.experiment], budget, material, output, tqdm.write)
    if arguments.document:
        insert(arguments.document, arguments.experiment, text)
    print(text)
    return 0


def _generalisation(arguments: argparse.Namespace) -> int:
    import torch
    from tqdm import tqdm

    from threedme_ros.samples import SampleError
    from threedme_ros.share import share_path
    from threedme_ros.training.experiments.table import insert
    from threedme_ros.training.generalisation.experiment import document, evaluate_shipped, is_whole, train_and_evaluate
    from threedme_ros.training.generalisation.runs import chosen
    from threedme_ros.training.generalisation.table import summary

    runs = chosen(arguments.only)
    if arguments.threads < 1:
        raise ValueError(f"--threads {arguments.threads}: expected at least 1")
    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)  # they are ten times slower than zero
    output = arguments.output or Path("runs/generalisation")
    options = {
        "first_recipe": arguments.first_task or share_path(FIRST_RECIPE),
        "minutes": arguments.minutes,
        "first_minutes": arguments.first_minutes,
        "clock": arguments.clock,
        "say": tqdm.write,
    }
    try:
        results = train_and_evaluate(
            runs, arguments.task or share_path(RECIPE), output, evaluated=not arguments.train_only, **options
        )
        if arguments.train_only:
            return 0
        shipped = evaluate_shipped(output, say=tqdm.write) if is_whole(results) else None
    except SampleError as error:
        raise ValueError(str(error)) from error
    if is_whole(results):
        text = document(results, shipped)
        (output / f"{GENERALISATION}.md").write_text(text)
        if arguments.document:
            insert(arguments.document, GENERALISATION, text)
    print(summary(results, shipped))
    return 0
