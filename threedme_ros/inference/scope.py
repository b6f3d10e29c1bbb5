"""Is this input what the checkpoint was made for? A score from the image, the labels and their confidence.

It needs nothing of the engine but what every engine gives. A linear model on a few plain figures (how sure, how much of
the body is labelled, how coherent, how the structures lie to each other) that `threedme_ros.training.scope_fit` fits on
synthesised bodies against synthesised heads, limbs, phantoms, empty rooms and noise, for one checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from threedme_ros.inference.preprocess import PADDING_VALUE
from threedme_ros.model.weights_file import CheckpointError
from threedme_ros.volume import MM_PER_M

FEATURES = (
    "confidence of the body",
    "confidence of structures",
    "unsure structures",
    "labelled share",
    "structures",
    "coherence",
    "misplaced",
    "roughness",
    "cross-section",
    "extent",
    "mean intensity",
    "spread of intensity",
)
"""What the model weighs, see `Arrangement` and `measure`."""

BODY_ABOVE = PADDING_VALUE + 0.1
STEP = 2
"""Every second voxel along each axis is looked at: an eighth of them tells as much."""

UNSURE = 0.5
LEAST_ML = 2.0
"""Of a structure that counts as present."""

FARTHEST = 3.0
"""Standard deviations: a pair of structures that lies worse than that counts as this."""

UNKNOWN_PLACE = 1.5
"""What "misplaced" is where less than two structures are present; 0.8 is usual for a body."""

LARGEST = 1e9
"""Of any number in a model, and what it is divided by is at least 1 / this: no figure of `measure` comes near either,
and what is reckoned stays finite."""

CLIP = 4.0
"""Standard deviations: a figure far from all that was fitted on weighs no more than this."""


@dataclass(frozen=True, eq=False)
class Arrangement:
    """Where structures lie to each other: of structure b's centre minus structure a's, mm along S, A, R.

    pairs: (N, 2) ids, a < b. middle, spread: (N, 3).
    """

    pairs: np.ndarray
    middle: np.ndarray
    spread: np.ndarray

    def misplaced(self, centres: Mapping[int, np.ndarray]) -> float:
        """The mean distance from the middle in units of the spread, over the pairs that are present and known."""
        known = [i for i, (a, b) in enumerate(self.pairs) if a in centres and b in centres]
        if not known:
            return UNKNOWN_PLACE
        apart = np.array([centres[b] - centres[a] for a, b in self.pairs[known]])
        return float(np.minimum(np.abs(apart - self.middle[known]) / self.spread[known], FARTHEST).mean())


@dataclass(frozen=True)
class Scope:
    """score: the log-odds of a body like those the checkpoint was made for, 0 at even odds; below ``threshold`` the
    input is flagged. It orders inputs; it is no probability.
    """

    score: float
    threshold: float

    @property
    def inside(self) -> bool:
        return self.score >= self.threshold

    @property
    def warnings(self) -> tuple[str, ...]:
        if self.inside:
            return ()
        return (
            f"out of scope: score {self.score:.1f}, expected at least {self.threshold:.1f}; this does not look like a "
            "trunk that the checkpoint was made for: do not trust the labels",
        )


@dataclass(frozen=True, eq=False)
class ScopeModel:
    """mean, deviation, weight: (F,) of each of `FEATURES`. arrangement: of the structures in the fitted bodies."""

    mean: np.ndarray
    deviation: np.ndarray
    weight: np.ndarray
    bias: float
    threshold: float
    arrangement: Arrangement

    def judge(
        self, x: np.ndarray, labels: np.ndarray, confidence: np.ndarray, spacing_mm: tuple[float, float, float]
    ) -> Scope:
        """x: the prepared (D, H, W). labels uint8 and confidence float, the same shape. spacing_mm: (D, H, W)."""
        return self.judge_figures(measure(x, labels, confidence, spacing_mm, self.arrangement))

    def judge_figures(self, figures: np.ndarray) -> Scope:
        """``figures``: (F,), what `measure` gave."""
        standard = np.clip((figures - self.mean) / self.deviation, -CLIP, CLIP)
        return Scope(float(standard @ self.weight + self.bias), self.threshold)

    def to_dict(self) -> dict:
        """Plain numbers, for the checkpoint's metadata."""
        arrangement = {
            "pairs": self.arrangement.pairs.tolist(),
            "middle_mm": np.round(self.arrangement.middle, 1).tolist(),
            "spread_mm": np.round(self.arrangement.spread, 1).tolist(),
        }
        columns = zip(FEATURES, self.mean, self.deviation, self.weight, strict=True)
        features = {n: [float(f"{v:.6g}") for v in values] for n, *values in columns}
        return {"features": features, "bias": self.bias, "threshold": self.threshold, "arrangement": arrangement}

    @classmethod
    def from_dict(cls, stored: Mapping) -> ScopeModel:
        """CheckpointError for figures that this version does not measure, or that no verdict can be reckoned with."""
        try:
            features, table = stored["features"], stored["arrangement"]
            if not isinstance(features, Mapping) or tuple(features) != FEATURES:
                raise CheckpointError(f"scope features {list(features)}: expected numbers for {list(FEATURES)}")
            mean, deviation, weight = _numbers("features", list(features.values()), len(FEATURES), 3).T
            pairs = _numbers("pairs", table["pairs"], len(table["pairs"]), 2)
            arrangement = Arrangement(
                pairs.astype(np.intp),
                _numbers("middle_mm", table["middle_mm"], len(pairs), 3),
                _numbers("spread_mm", table["spread_mm"], len(pairs), 3),
            )
            bias, threshold = _numbers("bias and threshold", [stored["bias"], stored["threshold"]], 2)
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"scope model without {error}") from error
        if not (np.isin(pairs, np.arange(1, 256)).all() and (pairs[:, 0] < pairs[:, 1]).all()):
            raise CheckpointError(f"scope pairs {pairs.tolist()}: expected two ids from 1 to 255, the smaller first")
        if (least := min(deviation.min(), arrangement.spread.min(initial=1))) < 1 / LARGEST:
            raise CheckpointError(f"scope deviation or spread {least:g}: expected at least {1 / LARGEST:g}")
        return cls(mean, deviation, weight, float(bias), float(threshold), arrangement)


def _numbers(what: str, values: object, *shape: int) -> np.ndarray:
    """``values`` as float64 of ``shape``; CheckpointError unless all are numbers within `LARGEST`."""
    try:
        found = np.array(values, np.float64) if values else np.zeros((0, *shape[1:]))
    except (TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"scope {what}: {error}") from error
    if found.shape != shape or not (np.abs(found) <= LARGEST).all():
        raise CheckpointError(f"scope {what} {values!r}: expected {shape} numbers within {LARGEST:g}")
    return found


def measure(
    x: np.ndarray,
    labels: np.ndarray,
    confidence: np.ndarray,
    spacing_mm: tuple[float, float, float],
    arrangement: Arrangement,
) -> np.ndarray:
    """`FEATURES` of a prepared volume x (D, H, W) in [-1, 1] and its result; (F,) float64.

    spacing_mm: along D, H, W.
    """
    cut = tuple(slice(min(STEP, n) // 2, None, min(STEP, n)) for n in x.shape)
    spacing = [s * c.step for s, c in zip(spacing_mm, cut, strict=True)]
    x, labels, confidence = x[cut], labels[cut], confidence[cut]
    structure, body = labels > 0, (x > BODY_ABOVE) | (labels > 0)
    voxels, certain = int(body.sum()), confidence[structure]
    inside = x[body]
    present = centres_mm(labels, spacing)
    area = body.sum((1, 2)).max() * spacing[1] * spacing[2]  # mm^2, of the largest slice
    return np.array(
        (
            confidence[body].mean() if voxels else 0.0,
            certain.mean() if certain.size else 0.0,
            (certain < UNSURE).mean() if certain.size else 1.0,
            structure.sum() / max(voxels, 1),
            len(present),
            _coherence(labels),
            arrangement.misplaced(present),
            _roughness(x, body),
            np.log(max(area, 1.0)),
            np.log(max(body.any((1, 2)).sum() * spacing[0], 1.0)),
            inside.mean() if voxels else PADDING_VALUE,
            inside.std() if voxels else 0.0,
        ),
        np.float64,
    )


def centres_mm(labels: np.ndarray, spacing_mm: list[float]) -> dict[int, np.ndarray]:
    """Structure id -> centre of its voxels in mm from the array's corner, (S, A, R); of those of `LEAST_ML` or more."""
    where = np.nonzero(labels)
    ids = labels[where]
    count = np.bincount(ids, minlength=256)
    sums = [np.bincount(ids, axis * s, minlength=256) for axis, s in zip(where, spacing_mm, strict=True)]
    least = LEAST_ML * MM_PER_M / np.prod(spacing_mm)
    return {int(i): np.array([s[i] / count[i] for s in sums]) for i in np.flatnonzero(count >= max(least, 1))}


def _coherence(labels: np.ndarray) -> float:
    """Of the pairs of neighbours of which one is labelled, the share with one label. Speckle has little."""
    same = pairs = 0
    for axis in range(3):
        along = np.moveaxis(labels, axis, 0)
        first, second = along[1:], along[:-1]
        labelled = (first > 0) | (second > 0)
        pairs += np.count_nonzero(labelled)
        same += np.count_nonzero(labelled & (first == second))
    return same / pairs if pairs else 0.0


def _roughness(x: np.ndarray, body: np.ndarray) -> float:
    """The mean step between neighbours in the body over its standard deviation: 1.1 for white noise, 0 for a ramp."""
    total = count = 0
    for axis in range(3):
        along, inside = np.moveaxis(x, axis, 0), np.moveaxis(body, axis, 0)
        both = inside[1:] & inside[:-1]
        total += float(np.abs(along[1:] - along[:-1])[both].sum())
        count += int(both.sum())
    spread = float(x[body].std()) if count else 0.0
    return total / count / spread if spread > 0 else 0.0
