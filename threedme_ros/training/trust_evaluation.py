"""`threedme evaluate trust`: what the confidence is worth on real patients, and which inputs the scope score flags."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from threedme_ros.inference.segmenter import Segmenter
from threedme_ros.model.checkpoint import Checkpoint, load_checkpoint
from threedme_ros.samples import SampleError, head_volumes, sample_case
from threedme_ros.share import DEMO_CHECKPOINT, share_path
from threedme_ros.volume import Volume, VolumeError

from .calibration import HEAD
from .calibration_error import CalibrationScore, body_voxels, calibration_score
from .evaluate import CASES
from .experiments.table import insert, markdown

SPACING_MM = 3.0
SEED = 20261125


@dataclass(frozen=True)
class Verdict:
    """One input. before, after: its calibration without the temperature and with it; None without a truth. scope,
    threshold: None without a verdict. refused: why there are no labels at all.
    """

    name: str
    before: CalibrationScore | None = None
    after: CalibrationScore | None = None
    scope: float | None = None
    threshold: float | None = None
    refused: str = ""

    @property
    def spoken(self) -> str:
        if self.refused:
            return f"refused: {self.refused}"
        if self.scope is None:
            return "no verdict"
        return "in scope" if self.scope >= self.threshold else "flagged"


def evaluate_trust(checkpoint: Checkpoint, engine: str = "torch") -> Iterator[Verdict]:
    """The sample patients, then what is no trunk. SampleError if the patients cannot be had."""
    segmenter = Segmenter(checkpoint, engine=engine)
    bare = Segmenter(untempered(checkpoint), engine=engine)
    try:
        for key in CASES:
            case = sample_case(key)
            image, truth = case.image(), case.labels(checkpoint.anatomy).voxels
            ids = [checkpoint.anatomy[n].id for n in case.structures if n in checkpoint.anatomy]
            body, found = body_voxels(image), segmenter.segment(image)
            scores = [
                calibration_score(f.labels.voxels, f.confidence.voxels, truth, body, ids)
                for f in (bare.segment(image), found)
            ]
            yield _judged(Verdict(f"patient {key} ({case.role})", *scores), found)
        for name, volume in (*_heads(), *no_bodies()):
            try:
                yield _judged(Verdict(name), segmenter.segment(volume))
            except VolumeError as error:
                yield Verdict(name, refused=str(error))
    finally:
        segmenter.close()
        bare.close()


def untempered(checkpoint: Checkpoint) -> Checkpoint:
    """The network as it was trained: the temperature taken out of its last layer."""
    temperature = (checkpoint.calibration or {}).get("temperature", 1.0)
    head = {name: checkpoint.weights[name].float() * temperature for name in HEAD}
    weights = checkpoint.weights | head
    return replace(checkpoint, weights=weights, calibration=None, scope=None, hash=f"{checkpoint.hash}-untempered")


def _judged(verdict: Verdict, found) -> Verdict:
    if found.scope is None:
        return verdict
    return replace(verdict, scope=found.scope.score, threshold=found.scope.threshold)


def _heads() -> Iterator[tuple[str, Volume]]:
    try:
        heads = head_volumes()
    except SampleError as error:
        print(f"no heads: {error}")
        return
    for number, volume in enumerate(heads, start=1):
        yield f"head {number} (MR of a patient)", volume


def no_bodies() -> Iterator[tuple[str, Volume]]:
    """Noise, an empty room, a water phantom, and a volume of one value."""
    rng, affine = np.random.default_rng(SEED), np.diag([SPACING_MM] * 3 + [1.0])

    def volume(voxels: np.ndarray) -> Volume:
        return Volume(voxels.astype(np.int16), affine)

    yield "white noise, 400 HU", volume(rng.normal(0, 400, (96, 80, 96)))
    yield "white noise, no unit", volume(rng.integers(0, 256, (96, 80, 96)))
    room = rng.normal(-1000, 15, (128, 128, 64))
    room[20:108, 40:44] = -100
    yield "empty room with a table", volume(room)
    x, y = np.ogrid[-48:48, -48:48]
    water = np.where(x**2 + y**2 < 33**2, 0, -1000)[:, :, None] + rng.normal(0, 8, (96, 96, 40))
    yield "water phantom, 20 cm", volume(water)
    yield "one value everywhere", volume(np.full((64, 64, 64), 40))


def table(verdicts: list[Verdict]) -> str:
    """As Markdown: calibration error over the body before and after, that of structures after, score and verdict."""

    def error(score: CalibrationScore | None, part: str) -> str:
        return "" if score is None else f"{getattr(score, part).error:.3f}"

    rows = [
        (
            v.name,
            error(v.before, "body"),
            error(v.after, "body"),
            error(v.before, "foreground"),
            error(v.after, "foreground"),
            "" if v.scope is None else f"{v.scope:.1f}",
            v.spoken,
        )
        for v in verdicts
    ]
    header = ("input", "ECE, T = 1", "ECE", "structures, T = 1", "structures", "scope score", "verdict")
    return markdown(header, rows)


def main(arguments: argparse.Namespace) -> int:
    checkpoint = load_checkpoint(arguments.checkpoint or share_path(DEMO_CHECKPOINT))
    try:
        verdicts = []
        for verdict in evaluate_trust(checkpoint, "torch" if arguments.engine == "auto" else arguments.engine):
            verdicts.append(verdict)
            print(f"{verdict.name}: {verdict.spoken}", flush=True)
    except SampleError as error:
        raise ValueError(str(error)) from error
    temperature = (checkpoint.calibration or {}).get("temperature")
    threshold = (checkpoint.scope or {}).get("threshold")
    temperature = "none" if temperature is None else f"{temperature:.2f}"
    text = f"{table(verdicts)}\nCheckpoint {checkpoint.hash}: temperature {temperature}, scope threshold {threshold}."
    print(text)
    if arguments.document:
        insert(arguments.document, "trust", text)
    return 0
