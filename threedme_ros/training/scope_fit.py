"""Fitting a checkpoint's scope model: its own answers to synthesised bodies against its answers to everything else.

Logistic regression on standardised figures, with a ridge that keeps correlated ones from cancelling out. The threshold
comes from cross-validation: each input is scored by a model that was fitted without its part, and the threshold lies in
the middle of where the two error rates add up to the least.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

from threedme_ros.anatomy import Anatomy
from threedme_ros.inference.scope import FEATURES, Arrangement, ScopeModel, centres_mm, measure
from threedme_ros.inference.segmenter import Segmenter
from threedme_ros.model.checkpoint import add_to_checkpoint, load_checkpoint

from .calibration import case_weights
from .case import TrainingCase
from .errors import TrainingError
from .procedural import procedural_cases
from .scope_data import OTHERS, bodies, others

RIDGE = 0.02
FOLDS = 3
BODY = "body"
FEWEST_PAIRS = 8
LEAST_SPREAD_MM = 6.0


@dataclass(frozen=True)
class ScopeConfig:
    """inputs: how many of each sort, bodies and others. trunks: procedural bodies, drawn for this alone. trunk_share:
    of the bodies that are windows of those; the others are windows of the training's cases.
    """

    inputs: int = 90
    trunks: int = 8
    trunk_share: float = 0.5
    seed: int = 11_000_000

    def __post_init__(self) -> None:
        if self.inputs < 2 * len(OTHERS) or self.trunks < 0 or not 0 <= self.trunk_share <= 1:
            raise TrainingError(f"{self}: expected at least {2 * len(OTHERS)} inputs, no negative number, a share to 1")


@dataclass(frozen=True, eq=False)
class Answer:
    """One input and what the network said: kind, image x, labels, confidence (all (D, H, W))."""

    kind: str
    x: np.ndarray
    labels: np.ndarray
    confidence: np.ndarray


def fit_scope(
    path: str | Path,
    cases: Sequence[TrainingCase],
    anatomy: Anatomy,
    config: ScopeConfig | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict:
    """Fit the scope model of the checkpoint ``path`` and write the file anew with it; returns what was written.

    cases: those of its training. What is in the file about calibration stays. progress: gets inputs done, of how many.
    """
    config = config or ScopeConfig()
    checkpoint = load_checkpoint(path)
    spacing = checkpoint.preprocessing.spacing_mm[::-1]  # x, y, z -> (D, H, W)
    trunks = procedural_cases(config.trunks, config.seed, anatomy, checkpoint.preprocessing)
    segmenter = Segmenter(checkpoint, engine="torch")
    try:
        answers = list(_answers(segmenter, [c for c in cases if c.real], trunks, config, progress))
    finally:
        segmenter.close()
    model, report = fit(answers, spacing)
    stored = model.to_dict() | {"fitted_on": report | asdict(config)}
    fitted = {"calibration": checkpoint.calibration} if checkpoint.calibration else {}
    add_to_checkpoint(path, fitted | {"scope": stored})
    return stored


def _answers(segmenter: Segmenter, patients, trunks, config: ScopeConfig, progress):
    weights = case_weights(trunks, patients, config.trunk_share)
    inside = ((BODY, x) for x in bodies([*trunks, *patients], weights, config.seed, config.inputs))
    outside = others([*trunks, *patients], config.seed, config.inputs)
    for number, (kind, x) in enumerate([*inside, *outside]):
        yield Answer(kind, x, *segmenter.predict(x))
        progress(number + 1, 2 * config.inputs)


def fit(answers: Sequence[Answer], spacing_mm: tuple[float, float, float]) -> tuple[ScopeModel, dict]:
    """The model of all ``answers``, and how many of each kind it flags. spacing_mm: along (D, H, W).

    The report's "flagged" is cross-validated; "flagged_unseen" is by a model that knows no other input of that kind.
    """

    def scores(left_out: np.ndarray) -> list[float]:
        model = _fit([a for a, out in zip(answers, left_out, strict=True) if not out], spacing_mm)
        held = [a for a, out in zip(answers, left_out, strict=True) if out]
        return [model.judge(a.x, a.labels, a.confidence, spacing_mm).score for a in held]

    names = [a.kind for a in answers]
    fold = np.array([names[:i].count(name) % FOLDS for i, name in enumerate(names)])  # each kind in every fold
    kinds, crossed = np.array(names), np.empty(len(answers))
    for number in range(FOLDS):
        crossed[fold == number] = scores(fold == number)
    threshold = round(best_threshold(crossed[kinds == BODY], crossed[kinds != BODY]), 2)
    unlike = [str(kind) for kind in np.unique(kinds) if kind != BODY]
    report = {
        "what": "synthesised bodies against synthesised heads, limbs, phantoms, empty rooms, noise, shuffled bodies",
        "flagged": {kind: _flagged(crossed[kinds == kind], threshold) for kind in (BODY, *unlike)},
        "flagged_unseen": {kind: _flagged(np.array(scores(kinds == kind)), threshold) for kind in unlike},
    }
    return replace(_fit(answers, spacing_mm), threshold=threshold), report


def _flagged(scores: np.ndarray, threshold: float) -> list[int]:
    """[flagged, of how many]."""
    return [int((scores < threshold).sum()), len(scores)]


def _fit(answers: Sequence[Answer], spacing_mm: tuple[float, float, float]) -> ScopeModel:
    """With a threshold of 0."""
    inside = [a for a in answers if a.kind == BODY]
    arrangement = arrange([centres_mm(a.labels, list(spacing_mm)) for a in inside])

    def figures(group: Sequence[Answer]) -> np.ndarray:
        return np.array([measure(a.x, a.labels, a.confidence, spacing_mm, arrangement) for a in group])

    outside = [a for a in answers if a.kind != BODY]
    return ScopeModel(*_regress(figures(inside), figures(outside)), 0.0, arrangement)


def best_threshold(inside: np.ndarray, outside: np.ndarray) -> float:
    """The middle of the range where the shares of ``inside`` below and of ``outside`` at or above add up to least."""
    edges = np.unique(np.concatenate([inside, outside]))
    errors = np.array([(inside < e).mean() + (outside >= e).mean() for e in edges])
    best = int(errors.argmin())  # any threshold above the score before it does as well
    return float((edges[max(best - 1, 0)] + edges[best]) / 2)


def arrange(bodies_mm: Sequence[dict[int, np.ndarray]]) -> Arrangement:
    """Where structures lie to each other in ``bodies_mm`` (structure -> centre): medians and robust deviations, mm."""
    ids = sorted({i for centres in bodies_mm for i in centres})
    pairs, middle, spread = [], [], []
    for a in ids:
        for b in (i for i in ids if i > a):
            apart = np.array([c[b] - c[a] for c in bodies_mm if a in c and b in c])
            if len(apart) < FEWEST_PAIRS:
                continue
            pairs.append((a, b))
            middle.append(np.median(apart, 0))
            spread.append(np.maximum(1.4826 * np.median(np.abs(apart - middle[-1]), 0), LEAST_SPREAD_MM))
    return Arrangement(
        np.array(pairs, np.intp).reshape(-1, 2), np.array(middle).reshape(-1, 3), np.array(spread).reshape(-1, 3)
    )


def _regress(inside: np.ndarray, outside: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """mean, deviation, weight (F,) and bias of a ridge logistic regression, both classes weighing the same."""
    figures = np.concatenate([inside, outside])
    mean, deviation = figures.mean(0), np.maximum(figures.std(0), 1e-6)
    z = (figures - mean) / deviation
    sign = np.repeat([1.0, -1.0], [len(inside), len(outside)])
    share = np.repeat([0.5 / len(inside), 0.5 / len(outside)], [len(inside), len(outside)])

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (z @ w[:-1] + w[-1])
        push = -share * sign / (1 + np.exp(margin))
        ridge = RIDGE * w[:-1]
        value = share @ np.logaddexp(0, -margin) + ridge @ w[:-1] / 2
        return float(value), np.concatenate([push @ z + ridge, [push.sum()]])

    best = minimize(loss, np.zeros(len(FEATURES) + 1), jac=True, method="L-BFGS-B")
    return mean, deviation, best.x[:-1], float(best.x[-1])
