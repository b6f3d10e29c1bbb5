"""Running an experiment: every arm with every seed, each run recorded once, and the table of them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from tqdm import tqdm

from threedme_ros.model.foundation import Foundation, load_foundation
from threedme_ros.model.threedme import ThreeDME
from threedme_ros.training.data import WindowStream
from threedme_ros.training.distributed import launch_fabric
from threedme_ros.training.pretrain import pretrain
from threedme_ros.training.run_folder import RunFolder
from threedme_ros.training.trainer import MovingAverage, Trainer

from .arms import Arm, Experiment
from .budget import Budget
from .material import Held, Material
from .records import Records
from .table import Difference, Spread, markdown


def run_experiment(
    experiment: Experiment,
    budget: Budget,
    material: Material,
    folder: Path,
    say: Callable[[str], None] = lambda text: None,
) -> str:
    """Do what is left to do of ``experiment``, and write ``folder``/NAME.md, which is also returned.

    TrainingError if the folder holds runs with another budget.
    """
    torch.set_flush_denormal(True)  # they are ten times slower than zero
    results: dict[str, list[dict]] = {arm.key: [] for arm in experiment.arms}
    for seed in budget.seeds:  # seeds outside: what an interrupted experiment has done is a whole comparison
        for arm in experiment.arms:
            result = run_arm(arm, seed, budget, material, folder)
            figures = ", ".join(f"{m.title} {result[m.key]:.{m.digits}f}" for m in experiment.metrics)
            say(f"{arm.title}, seed {seed}: {figures}")
            results[arm.key].append(result)
    text = report(experiment, budget, results)
    (folder / f"{experiment.name}.md").write_text(text)
    return text


def run_arm(arm: Arm, seed: int, budget: Budget, material: Material, folder: Path) -> dict[str, float]:
    """The figures of one arm and seed: of its pretraining, if it has one, and of its training."""
    records, figures, foundation = Records(folder), {}, None
    if arm.masking:
        task = budget.pretraining(arm.masking, seed)
        place = folder / f"pretrain-{arm.masking}-seed{seed}"
        recipe = {"task": task.as_dict(), "scans": [[v.name, v.shape] for v in material.volumes]}

        def pretraining() -> dict:
            fabric = launch_fabric(task.precision, "cpu")
            done = pretrain(task, material.volumes, place, fabric=fabric, resume=True)
            exam = {f"exam/{h}/{k}": v for h, scores in done.exam.items() for k, v in scores.items()}
            return exam | {"pretraining_loss": done.loss, "foundation": done.hash}

        figures = records.once(place.name, recipe, pretraining)
        run = RunFolder(place)
        run.state.unlink(missing_ok=True)  # four times the size of the foundation, and of no more use
        foundation = load_foundation(run.foundation)
    recipe = {
        "task": budget.training(material.labelled.name, seed).as_dict(),
        "steps": budget.train_steps,
        "model_changes": {**budget.model_changes, **arm.changes},
        "structures": [structure.name for structure in material.anatomy],
        "held": [[held.name, tuple(held.image.shape), held.classes] for held in material.held],
        "foundation": foundation and foundation.hash,
    }
    name = f"train-{arm.key}-seed{seed}"
    return figures | records.once(name, recipe, lambda: train(arm, seed, budget, material, foundation))


def train(arm: Arm, seed: int, budget: Budget, material: Material, foundation: Foundation | None) -> dict[str, float]:
    """All weights, on the few labels, for the budget's steps; then Dice of the weights' moving average."""
    case, steps = material.labelled, budget.train_steps
    task = budget.training(case.name, seed)
    trainer = Trainer.create(task, material.anatomy.num_classes, {**budget.model_changes, **arm.changes})
    if foundation is not None:
        foundation.initialise(trainer.model.encoder)
        trainer.average = MovingAverage(trainer.model, task.ema_decay)
    stream = WindowStream([case], [1.0], task.windows, seed, steps)
    losses = []
    for step in tqdm(range(steps), desc=f"{arm.key}, seed {seed}", unit="step"):
        image, labels = stream[step]
        losses.append(trainer.train_step(image[None], labels[None], step / steps))
    last = losses[-max(1, steps // 10) :]
    return {
        **scores(trainer.average.model, material),
        "loss": sum(last) / len(last),
        "parameters_m": sum(p.numel() for p in trainer.model.parameters()) / 1e6,
    }


def scores(model: ThreeDME, material: Material) -> dict[str, float]:
    """Mean Dice on every held volume, and on the labelled part itself."""
    case = material.labelled
    own = Held.of("labelled", case.image, case.labels, case.locations.keys())
    return {f"dice/{held.name}": held.mean_dice(model) for held in (*material.held, own)}


def report(experiment: Experiment, budget: Budget, results: Mapping[str, list[dict]]) -> str:
    """Markdown: the figures of every arm, then each arm less the first, seed by seed."""
    first, *others = experiment.arms
    rows = [
        [arm.title, *(Spread.of([r[m.key] for r in results[arm.key]]).text(m.digits) for m in experiment.metrics)]
        for arm in experiment.arms
    ]
    compared = [m for m in experiment.metrics if m.compared]
    differences = [
        [
            arm.title,
            *(
                Difference.of([r[m.key] for r in results[arm.key]], [r[m.key] for r in results[first.key]]).text(
                    m.digits
                )
                for m in compared
            ),
        ]
        for arm in others
    ]
    pretrained = f"{budget.pretrain_steps} steps of pretraining, " if any(a.masking for a in experiment.arms) else ""
    return "\n".join(
        [
            f"{experiment.question} {pretrained}{budget.train_steps} steps of training, seeds"
            f" {', '.join(map(str, budget.seeds))}: mean (lowest to highest).\n",
            markdown(["arm", *(m.title for m in experiment.metrics)], rows),
            f"Less {first.title}, seed by seed; bold where the two arms' ranges do not overlap:\n",
            markdown(["arm", *(m.title for m in compared)], differences),
        ]
    )
