"""Training one run of the table, once. Of the sample volumes, only the run's own patient is opened."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from threedme_ros.anatomy import Anatomy
from threedme_ros.model.config import Preprocessing
from threedme_ros.share import share_path
from threedme_ros.training import train
from threedme_ros.training.experiments.records import Records
from threedme_ros.training.networks import load_network
from threedme_ros.training.sample_cases import load_training_cases
from threedme_ros.training.tasks import load_task

from .runs import Run

VALIDATIONS = 2
"""Points of each run's curve in metrics.jsonl, the last at the end; they choose nothing."""


def train_once(
    run: Run,
    recipe: Path,
    folder: Path,
    *,
    minutes: float | None = None,
    clock: str | None = None,
    max_steps: int | None = None,
    samples: Path | None = None,
    say: Callable[[str], None] = print,
) -> dict:
    """What training of ``run`` gave, from ``folder``/NAME.json if it is there; its checkpoint is `checkpoint_path`.

    recipe: a task YAML, whose model, seed and patients the run replaces. minutes, clock: override the recipe's.
    max_steps: as for `train.run`. samples: where the sample patients lie (None fetches them). An interrupted run goes
    on. Raises TrainingError if the folder holds this run with another task.
    """
    task = run.task(load_task(recipe, model=run.model, minutes=minutes, clock=clock))
    task = replace(task, validate_minutes=task.minutes / VALIDATIONS)
    place = folder / run.name

    def work() -> dict:
        anatomy, preprocessing = Anatomy.from_yaml(share_path(task.anatomy)), Preprocessing()
        cases = load_training_cases([run.patient], anatomy, preprocessing, samples)
        resume = (place / train.STATE_FILE).is_file()
        path = train.run(
            task, cases, anatomy, preprocessing, place, max_steps=max_steps, resume=resume,
            say=lambda text: say(f"{run.name}: {text}"),
        )  # fmt: skip
        checkpoint = load_network(path)
        (place / train.STATE_FILE).unlink(missing_ok=True)  # four times the size of the checkpoint, and of no more use
        last = json.loads((place / train.LOG_FILE).read_text().splitlines()[-1])
        parameters = sum(p.numel() for p in checkpoint.build().parameters())
        return {
            "checkpoint": checkpoint.hash,
            "parameters_m": parameters / 1e6,
            **{key: last[key] for key in ("step", "minutes", "wall_minutes", "loss", "data_share")},
            "synthetic_dice": last["dice"]["synthetic"],
        }

    return Records(folder).once(run.name, {"task": task.as_dict(), "steps": max_steps}, work)


def checkpoint_path(run: Run, folder: Path) -> Path:
    return folder / run.name / train.CHECKPOINT_FILE
