"""All runs, or some: train, then evaluate, each once; then the tables of what there is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from threedme_ros.model.checkpoint import load_checkpoint
from threedme_ros.share import DEMO_CHECKPOINT, share_path
from threedme_ros.training.experiments.records import Records
from threedme_ros.training.networks import load_network

from .evaluation import PRECISION, evaluate
from .figures import SHIPPED_PATIENTS, Results
from .runs import OTHER, RUNS, Run
from .table import structures, summary, trainings
from .training import checkpoint_path, train_once

SHIPPED_NAME = "shipped"


def train_and_evaluate(
    runs: Sequence[Run], recipe: Path, folder: Path, *, evaluated: bool = True, say: Callable[[str], None], **options
) -> Results:
    """Do what is left to do of ``runs``. evaluated: False trains only. options: for `train_once`.

    Evaluation begins when the last of ``runs`` has been trained; a first stage, which saw no patient, is not evaluated.
    """
    stages = dict.fromkeys(stage for run in runs for stage in (run.first, run) if stage is not None)
    trained = {run: train_once(run, recipe, folder, say=say, **options) for run in stages}
    samples, found = options.get("samples"), {}
    for run in runs if evaluated else ():
        if run.first is None:
            continue
        other = OTHER[run.patient]
        task = {"checkpoint": trained[run]["checkpoint"], "precision": PRECISION, "robustness": other}

        def work(run: Run = run, other: str = other) -> dict:
            say(f"{run.name}: evaluation")
            return evaluate(load_network(checkpoint_path(run, folder)), (other,), samples, say)

        found[run] = Records(folder).once(f"{run.name}-evaluation", task, work)
    return Results(trained, found)


def evaluate_shipped(folder: Path, samples: Path | None = None, say: Callable[[str], None] = print) -> dict:
    """As `evaluate`, of the checkpoint that ships, and its parameters; recorded under its hash."""
    checkpoint = load_checkpoint(share_path(DEMO_CHECKPOINT))

    def work() -> dict:
        say(f"{SHIPPED_NAME} ({checkpoint.hash}): evaluation")
        parameters = sum(p.numel() for p in checkpoint.build().parameters())
        return evaluate(checkpoint, SHIPPED_PATIENTS, samples, say) | {"parameters_m": parameters / 1e6}

    recipe = {"checkpoint": checkpoint.hash, "precision": PRECISION}
    return Records(folder).once(f"{SHIPPED_NAME}-{checkpoint.hash}-evaluation", recipe, work)


def document(results: Results, shipped: dict | None) -> str:
    """Markdown: the summary, the runs behind it, every structure."""
    return "\n".join(
        [
            summary(results, shipped),
            "## The runs\n",
            trainings(results),
            "## Every structure\n",
            structures(results, shipped),
        ]
    )


def is_whole(results: Results) -> bool:
    """Whether every run of the table is there."""
    return set(RUNS) <= results.found.keys()
