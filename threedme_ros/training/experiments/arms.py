"""The three questions, as arms that differ in one thing, and the figures that answer them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from threedme_ros.training.masking import SCHEDULES


@dataclass(frozen=True)
class Arm:
    """One row. key: names its runs' files; two experiments with an arm of one key share its runs.

    masking: the schedule it is pretrained with; None starts from random weights. changes: of `ModelConfig`.
    """

    key: str
    title: str
    masking: str | None = None
    changes: Mapping = field(default_factory=dict)


@dataclass(frozen=True)
class Metric:
    """One column: ``key`` of a run's result, shown with ``digits``; compared: also against the first arm."""

    key: str
    title: str
    digits: int = 3
    compared: bool = True


@dataclass(frozen=True)
class Experiment:
    """``arms``: the first is what the others are compared with."""

    name: str
    question: str
    arms: tuple[Arm, ...]
    metrics: tuple[Metric, ...]


DICE = (
    Metric("dice/A, lower half", "Dice A, lower half"),
    Metric("dice/B", "Dice B"),
    Metric("dice/labelled", "Dice, labelled part"),
)
PARAMETERS = Metric("parameters_m", "parameters, M", 2, compared=False)
SCRATCH = Arm("scratch", "full network, from scratch")

EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        Experiment(
            "masking",
            "Is progressive masking better than fixed or uniform masking?",
            tuple(Arm(kind, kind, masking=kind) for kind in SCHEDULES),
            (
                Metric("exam/0/l1", "error at hardness 0", 4),
                Metric("exam/0.5/l1", "error at 0.5", 4),
                Metric("exam/1/l1", "error at 1", 4),
                *DICE,
            ),
        ),
        Experiment(
            "few-labels",
            "With few labels, is a pretrained encoder better than random weights?",
            (SCRATCH, Arm("progressive", "pretrained, progressive masking", masking="progressive")),
            (*DICE, Metric("loss", "training loss at the end")),
        ),
        Experiment(
            "ablation",
            "What does each part of the encoder contribute?",
            (
                SCRATCH,
                Arm("no-graph", "without the graph branch", changes={"graph": False}),
                Arm("no-vit", "without the ViT branch", changes={"vit": False}),
                Arm("no-plane-attention", "without plane attention", changes={"plane_attention": False}),
            ),
            (*DICE, PARAMETERS),
        ),
    )
}
