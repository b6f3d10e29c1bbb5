"""From what each run found to the figures of a row: pure arithmetic over Dice by case and structure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from .runs import OTHER, Run

MR_CASE, THORAX_CASE, AORTA = "D", "C", "aorta"
SHIPPED_PATIENTS = ("A", "B")


@dataclass(frozen=True)
class Results:
    """trained: run -> what its training gave (`train_once`), first stages too. found: run -> what `evaluate` gave."""

    trained: Mapping[Run, Mapping]
    found: Mapping[Run, Mapping]


@dataclass(frozen=True)
class Figures:
    """Mean Dice. own: of the patients trained on. unseen: of the patient left out, over every structure its truth
    shows; unseen_shown: over those that the training patient shows too; None where no patient was left out.

    A missed structure counts 0 in every mean. robustness: of the patient left out, or of those trained on.
    """

    own: float
    unseen: float | None
    unseen_shown: float | None
    mr: float
    aorta: float
    robustness: float
    seconds: float

    @property
    def both(self) -> float | None:
        """The mean of the patient left out and the MR slab."""
        return None if self.unseen is None else (self.unseen + self.mr) / 2


def of_run(run: Run, found: Mapping) -> Figures:
    """``found``: as `evaluate` gives it, robustness on the patient left out."""
    dice, other = found["dice"], OTHER[run.patient]
    return Figures(
        own=fmean(dice[run.patient].values()),
        unseen=fmean(dice[other].values()),
        unseen_shown=fmean(dice[other][name] for name in shown(run, found)),
        mr=fmean(dice[MR_CASE].values()),
        aorta=dice[THORAX_CASE][AORTA],
        robustness=found["robustness"][other],
        seconds=found["seconds"],
    )


def of_shipped(found: Mapping) -> Figures:
    """Of a checkpoint that learned from both patients: none is left out."""
    dice = found["dice"]
    return Figures(
        own=fmean(fmean(dice[key].values()) for key in SHIPPED_PATIENTS),
        unseen=None,
        unseen_shown=None,
        mr=fmean(dice[MR_CASE].values()),
        aorta=dice[THORAX_CASE][AORTA],
        robustness=fmean(found["robustness"][key] for key in SHIPPED_PATIENTS),
        seconds=found["seconds"],
    )


def shown(run: Run, found: Mapping) -> list[str]:
    """Structures of the patient left out that the training patient's truth shows, too."""
    return [name for name in found["dice"][OTHER[run.patient]] if name in found["dice"][run.patient]]


def mean_of(figures: Sequence[Figures]) -> Figures:
    """Field by field, over the two directions of one seed. All must have a figure where one has."""
    return Figures(**{name: fmean(getattr(f, name) for f in figures) for name in Figures.__dataclass_fields__})
