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
    first_recipe: Path,
    minutes: float | None = None,
    first_minutes: float | None = None,
    clock: str | None = None,
    max_steps: int | None = None,
    samples: Path | None = None,
    say: Callable[[str], None] = print,
) -> dict:
    """What training of ``run`` gave, from ``folder``/NAME.json if it is there; its checkpoint is `checkpoint_path`.

    recipe: a task YAML, whose model, seed and patients the run replaces. first_recipe: likewise, of the first stage,
    which is trained before if it was not yet. minutes, first_minutes, clock: override the recipes'. max_steps: as for
    `train.run`, of each stage. samples: where the sample patients lie (None fetches them). An interrupted run goes
    on. Raises TrainingError if the folder holds this run with another task.
    """
    stages = {"first_recipe": first_recipe, "minutes": minutes, "first_minutes": first_minutes, "clock": clock}
    first = run.first and train_once(run.first, recipe, folder, **stages, max_steps=max_steps, samples=samples, say=say)
    own = (recipe, minutes) if first else (first_recipe, first_minutes)
    task = run.task(load_task(own[0], model=run.model, minutes=own[1], clock=clock))
    task = replace(task, validate_minutes=task.minutes / VALIDATIONS)
    place = folder / run.name

    def work() -> dict:
        anatomy, preprocessing = Anatomy.from_yaml(share_path(task.anatomy)), Preprocessing()
        cases = load_training_cases(list(task.cases), anatomy, preprocessing, samples)
        resume = (place / train.STATE_FILE).is_file()
        path = train.run(
            task, cases, anatomy, preprocessing, place, initial=first and checkpoint_path(run.first, folder),
            max_steps=max_steps, resume=resume, say=lambda text: say(f"{run.name}: {text}"),
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

    return Records(folder).once(
        run.name, {"task": task.as_dict(), "steps": max_steps, "first": first and first["checkpoint"]}, work
    )


def checkpoint_path(run: Run, folder: Path) -> Path:
    return folder / run.name / train.CHECKPOINT_FILE
