"""The runs behind the table, by name: which network learns from which patient, with which seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from threedme_ros.training.errors import TrainingError
from threedme_ros.training.peer_networks import PEERS
from threedme_ros.training.tasks import Task

OURS = "small"
SEEDS = (20, 21, 22)
PATIENTS = ("A", "B")
FIRST = "phantoms"
"""In a patient's place: the first stage of a network and seed, on procedural phantoms alone. Both patients' runs start
from its weights."""
OTHER = {"A": "B", "B": "A"}
"""Training patient -> the one it is then tried on, which its training never opens."""


@dataclass(frozen=True)
class Run:
    """``model`` (see `network_names`) trained on ``patient`` alone, with what is synthesised from it, or `FIRST`."""

    model: str
    seed: int
    patient: str

    @property
    def name(self) -> str:
        return f"{self.model}-{self.seed}-{self.patient}"

    @property
    def first(self) -> Run | None:
        """The run whose weights this one starts from."""
        return None if self.patient == FIRST else Run(self.model, self.seed, FIRST)

    def task(self, recipe: Task) -> Task:
        """``recipe`` with this run's patient and seed; ``recipe.model`` must be this run's already."""
        cases = {} if self.patient == FIRST else {self.patient: 1.0}
        return replace(recipe, name=self.name, seed=self.seed, cases=cases)


RUNS = tuple(
    Run(model, seed, patient)
    for model, seeds in ((OURS, SEEDS), *((peer, SEEDS[:1]) for peer in PEERS))
    for seed in seeds
    for patient in PATIENTS
)
"""Ours with three seeds, each peer with the first of them."""


def chosen(names: Sequence[str] | None = None) -> tuple[Run, ...]:
    """The runs called ``names``, first stages among them, in the table's order; None for all of the table.

    TrainingError for a name that none has.
    """
    if names is None:
        return RUNS
    known = {run.name: run for run in (*(run.first for run in RUNS), *RUNS)}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise TrainingError(f"run {unknown[0]!r}: expected one of {list(known)}")
    return tuple(run for name, run in known.items() if name in names)
