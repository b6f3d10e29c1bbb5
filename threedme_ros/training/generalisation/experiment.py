"""All runs, or some: train, then evaluate, each once; then the tables of what there is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from threedme_ros.model.checkpoint import load_checkpoint
from threedme_ros.share import DEMO_CHECKPOINT, share_path
from threedme_ros.training.experiments.records import Records
from threedme_ros.training.networks import load_network

from .evaluation import PRECISION, evaluate
from .figures import SHIPPED_PATIENTS
from .runs import OTHER, RUNS, Run
from .table import Results, structures, summary, trainings
from .training import checkpoint_path, train_once

SHIPPED_NAME = "shipped"


def train_and_evaluate(
    runs: Sequence[Run], recipe: Path, folder: Path, *, evaluated: bool = True, say: Callable[[str], None], **options
) -> dict[Run, tuple[dict, dict]]:
    """What is left to do of ``runs``; what each gave. evaluated: False trains only, and gives nothing.

    Evaluation begins when the last of ``runs`` has been trained. options: for `train_once`.
    """
    trained = {run: train_once(run, recipe, folder, say=say, **options) for run in runs}
    if not evaluated:
        return {}
    samples = options.get("samples")
    results = {}
    for run, record in trained.items():
        task = {"checkpoint": record["checkpoint"], "precision": PRECISION, "robustness": OTHER[run.patient]}

        def work(run: Run = run) -> dict:
            say(f"{run.name}: evaluation")
            return evaluate(load_network(checkpoint_path(run, folder)), (OTHER[run.patient],), samples, say)

        results[run] = record, Records(folder).once(f"{run.name}-evaluation", task, work)
    return results


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
    return set(RUNS) <= results.keys()
