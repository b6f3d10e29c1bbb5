"""What the windows of a run are drawn from: its patients, and procedural phantoms beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from threedme_ros.anatomy import Anatomy
from threedme_ros.model.config import Preprocessing

from .case import TrainingCase
from .data import WindowStream
from .errors import TrainingError
from .tasks import Task

VALIDATION_SEED = 7_000_000
"""Added to a task's seed: validation windows and their phantoms come from where training never draws."""
VALIDATION_WINDOWS = 12
VALIDATION_PHANTOMS = 4


@dataclass(frozen=True, eq=False)
class Pool:
    """Cases and how often each is drawn."""

    cases: tuple[TrainingCase, ...]
    weights: tuple[float, ...]


def training_pool(task: Task, patients: Sequence[TrainingCase], anatomy: Anatomy, preprocessing: Preprocessing) -> Pool:
    """``patients``, weighted as the task says, and its phantoms, which together get their share of the windows."""
    return _pool(task, patients, phantoms(task.phantoms.count, task.seed, anatomy, preprocessing))


def validation_windows(
    task: Task, patients: Sequence[TrainingCase], anatomy: Anatomy, preprocessing: Preprocessing
) -> list[tuple[Tensor, Tensor]]:
    """Fixed windows (image (1, D, H, W), labels (D, H, W)), all synthesised, half of them of phantoms if there are any.

    Of the run's own patients only the deformed labels are used, and of phantoms those that training never draws.
    """
    seed = task.seed + VALIDATION_SEED
    count = min(task.phantoms.count, VALIDATION_PHANTOMS)
    drawn = phantoms(count, seed, anatomy, preprocessing)
    if patients:
        task = replace(task, phantoms=replace(task.phantoms, count=count, share=0.5 if count else 0.0))
    pool = _pool(task, [replace(case, real=False) for case in patients], drawn)
    stream = WindowStream(pool.cases, pool.weights, task.windows, seed, VALIDATION_WINDOWS)
    return [stream[i] for i in range(len(stream))]


def phantoms(count: int, seed: int, anatomy: Anatomy, preprocessing: Preprocessing) -> list[TrainingCase]:
    """``count`` procedural cases, a function of ``seed``; TrainingError if one claims to be a scan."""
    if not count:
        return []
    from .procedural import procedural_cases

    cases = list(procedural_cases(count, seed, anatomy, preprocessing))
    if len(cases) != count or any(case.real for case in cases):
        raise TrainingError(f"{len(cases)} procedural cases: expected {count}, none of them real")
    return cases


def _pool(task: Task, patients: Sequence[TrainingCase], drawn: Sequence[TrainingCase]) -> Pool:
    if not patients:
        return Pool(tuple(drawn), (1.0,) * len(drawn))
    weights = [task.cases.get(case.name, 1.0) for case in patients]
    total = sum(weights)
    shares = [(1 - task.phantoms.share) * weight / total for weight in weights]
    shares += [task.phantoms.share / len(drawn) for _ in drawn]
    return Pool((*patients, *drawn), tuple(shares))
