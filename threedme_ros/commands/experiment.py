"""`threedme experiment`: masking schedules, few labels, and the encoder's parts, compared over seeds."""

from __future__ import annotations

import argparse
from pathlib import Path

NAMES = ("masking", "few-labels", "ablation")
SEEDS = (0, 1, 2)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("experiment", choices=NAMES, help="what to compare; arms that two experiments share run once")
    parser.add_argument(
        "--output", type=Path, default=Path("runs/experiments"), help="a JSON file a run, and NAME.md (resumable)"
    )
    parser.add_argument(
        "--document", type=Path, help="also put the tables into this file, between <!-- NAME --> and <!-- /NAME -->"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="at least three (default: 0 1 2)")
    parser.add_argument("--pretrain-steps", type=int, help="self-supervised steps of one window each")
    parser.add_argument("--train-steps", type=int, help="supervised steps of one window each")


def run(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from threedme_ros.samples import SampleError
    from threedme_ros.training.experiments.arms import EXPERIMENTS
    from threedme_ros.training.experiments.budget import Budget
    from threedme_ros.training.experiments.material import sample_material
    from threedme_ros.training.experiments.run import run_experiment
    from threedme_ros.training.experiments.table import insert

    given = {"pretrain_steps": arguments.pretrain_steps, "train_steps": arguments.train_steps}
    budget = Budget(seeds=tuple(arguments.seeds), **{k: v for k, v in given.items() if v is not None})
    try:
        material = sample_material(arguments.output / "data", budget.preprocessing)
    except SampleError as error:
        raise ValueError(str(error)) from error
    text = run_experiment(EXPERIMENTS[arguments.experiment], budget, material, arguments.output, tqdm.write)
    if arguments.document:
        insert(arguments.document, arguments.experiment, text)
    print(text)
    return 0
