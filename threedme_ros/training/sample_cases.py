"""The sample patients as training cases. Those marked "evaluation" are refused before any of their files is opened."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from threedme_ros.anatomy import Anatomy
from threedme_ros.model.config import Preprocessing
from threedme_ros.samples import SampleCase, sample_case, totalsegmentator_ids

from .case import TrainingCase, training_case
from .errors import TrainingError
from .substances import Substance
from .tissues import BONE, BOWEL, MUSCLE, VESSEL

# TotalSegmentator "total" ids that look alike in any contrast, apart from those that are one structure of ours
PAIRS = ((8, 9), (23, 24), (65, 66), (67, 68), (75, 76), (80, 81), (82, 83), (84, 85), (103, 115))
LUNG = range(10, 15)
KINDS = {
    **dict.fromkeys(range(80, 90), MUSCLE),  # gluteal muscles, autochthon, iliopsoas
    **dict.fromkeys((52, 53, 54, *range(55, 69)), VESSEL),
    **dict.fromkeys((*range(25, 51), *range(69, 79), *range(92, 117)), BONE),
    **dict.fromkeys((6, 18, 19, 20), BOWEL),
}
SUBSTANCES = {
    **{source: (substance, substance) for source, substance in {
        1: Substance.SPLEEN, 2: Substance.KIDNEY, 3: Substance.KIDNEY, 4: Substance.FLUID, 5: Substance.LIVER,
        7: Substance.PANCREAS, **dict.fromkeys((8, 9, 17, 22), Substance.GLAND), **dict.fromkeys(LUNG, Substance.LUNG),
        15: Substance.MUSCLE, 21: Substance.URINE, 23: Substance.FLUID, 24: Substance.FLUID, 51: Substance.HEART,
        **dict.fromkeys((52, 54, *range(55, 59), 61, 65, 66), Substance.ARTERY),
        **dict.fromkeys((53, 59, 60, 62, 63, 67, 68), Substance.VEIN), 64: Substance.PORTAL_VEIN,
        79: Substance.NERVE, 90: Substance.NERVE, 117: Substance.CARTILAGE,
        **dict.fromkeys(range(80, 90), Substance.MUSCLE),
    }.items()},
    **dict.fromkeys((*range(25, 51), *range(69, 79), *range(91, 117)), (Substance.MARROW, Substance.CORTICAL_BONE)),
    **dict.fromkeys((6, 18, 19, 20), (Substance.GUT_CONTENT, Substance.GUT_WALL)),
}  # fmt: skip
"""Source id -> what its two parts are made of (see `find_tissues`)."""


def load_training_cases(
    keys: Sequence[str], anatomy: Anatomy, preprocessing: Preprocessing, folder: Path | None = None
) -> list[TrainingCase]:
    """Cases ``keys`` of `threedme_ros.samples`; ``folder``: where the samples lie (None fetches them).

    Raises TrainingError for a case that is kept for evaluation, without opening it.
    """
    samples = _training_samples(keys, folder)
    families, cases = source_families(), []
    for sample in samples:
        source = sample.source_labels()
        cases.append(
            training_case(
                sample.key, sample.image(), source, sample.labels(anatomy), preprocessing, families, KINDS, SUBSTANCES
            )
        )
    return cases


def load_source_cases(
    keys: Sequence[str], preprocessing: Preprocessing, folder: Path | None = None
) -> list[TrainingCase]:
    """As `load_training_cases`, but the labels are the source's own ids, all of them: what a click may mean."""
    families, cases = source_families(), []
    for sample in _training_samples(keys, folder):
        source = sample.source_labels()
        cases.append(
            training_case(sample.key, sample.image(), source, source, preprocessing, families, KINDS, SUBSTANCES)
        )
    return cases


def _training_samples(keys: Sequence[str], folder: Path | None) -> list[SampleCase]:
    samples = [sample_case(key, folder) for key in keys]
    for sample in samples:
        if sample.role != "training":
            raise TrainingError(f"case {sample.key} ({sample.source}) is for evaluation only: expected a training case")
    return samples


def source_families() -> dict[int, int]:
    """Source id -> family: structures that share one mean intensity. Families count from 1."""
    groups = [*totalsegmentator_ids("total").values(), *PAIRS, tuple(LUNG)]
    families: dict[int, int] = {}
    for number, ids in enumerate(groups, start=1):
        for source in ids:
            families.setdefault(source, number)
    return families
