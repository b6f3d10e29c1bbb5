"""A confidence that means something: a temperature, and two lines a modality, fitted on synthesised bodies.

Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2: the logits are divided by one number T,
chosen by the likelihood of data held out from training. The last layer is linear, so 1/T goes into its weights: labels
stay, every engine gives that confidence, and no operator is added. What remains differs between background and
structures and between CT and the rest; `threedme_ros.inference.confidence` maps it, with lines that are fitted here.

Held out are procedural trunks of other seeds, and now and then the patients' label maps, always bent and synthesised.
CT is as in training; where it is no CT, of which training has no real image, windows are harder than those of training:
more bending, noise and artefacts. No voxel of a real scan is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import minimize, minimize_scalar
from torch import Tensor
from torch.nn import functional as F

from threedme_ros.anatomy import Anatomy
from threedme_ros.inference.confidence import GROUPS, table
from threedme_ros.model.checkpoint import add_to_checkpoint, load_checkpoint
from threedme_ros.model.layers import space_to_depth
from threedme_ros.model.threedme import ThreeDME

from .augment import PADDING, WarpConfig
from .calibration_error import Reliability, reliability
from .case import TrainingCase
from .data import WindowStream
from .errors import TrainingError
from .procedural import procedural_cases
from .synthesis import SynthesisConfig
from .window_config import WindowConfig

HEAD = ("decoder.head.weight", "decoder.head.bias")
LEAST, MOST = 0.2, 5.0
"""Temperatures that are looked at."""

BODY_ABOVE = PADDING + 0.1
RIDGE = 1e-3
"""Holds a line near slope 1 and offset 0 where a group has few voxels."""

CT_WINDOWS = WindowConfig(
    shapes=((48, 96, 96), (64, 96, 96), (32, 112, 128)),
    weights=(0.4, 0.3, 0.3),
    synthetic=1.0,
    warp=WarpConfig(share=1.0),
    synthesis=SynthesisConfig(contrasts=(1.0, 0.0, 0.0)),
)
OTHER_WINDOWS = replace(
    CT_WINDOWS,
    organs=1.0,
    warp=WarpConfig(rotation_deg=25.0, share=1.0),
    synthesis=SynthesisConfig(contrasts=(0.0, 0.6, 0.4), acquisition=1.5, artefacts=0.4),
)


@dataclass(frozen=True)
class CalibrationConfig:
    """What is fitted on.

    windows: how many of each modality. voxels: taken of each, of those in the body. trunks: procedural ones, drawn for
    this alone. trunk_share: of the windows that show one of them; the others show a case of the training. ct, other:
    how windows of the two modalities are drawn.
    """

    windows: int = 64
    voxels: int = 8_000
    trunks: int = 8
    trunk_share: float = 0.75
    seed: int = 9_000_000
    ct: WindowConfig = field(default_factory=lambda: CT_WINDOWS)
    other: WindowConfig = field(default_factory=lambda: OTHER_WINDOWS)

    def __post_init__(self) -> None:
        if self.windows < 2 or self.voxels < 1 or self.trunks < 0 or not 0 <= self.trunk_share <= 1:
            raise TrainingError(f"{self}: expected at least 2 windows, 1 voxel, no trunk and a share from 0 to 1")


@dataclass(frozen=True)
class Calibration:
    """What the checkpoint's metadata says.

    temperature: in its weights. lines: see `ConfidenceMap`. ece: modality -> [as trained, with the temperature, with
    the lines, too], over the body in one half of the synthesised windows when fitted on the other; what is in use was
    fitted on both. ece_structures: of them, where truth or prediction is a structure. fitted_on: in words and numbers.
    """

    temperature: float
    lines: dict[str, dict[str, list[float]]]
    ece: dict[str, list[float]]
    ece_structures: dict[str, list[float]]
    fitted_on: dict


Sample = tuple[Tensor, Tensor]
"""Logits (N, C) float32 and labels (N,) int64."""


def calibrate(
    path: str | Path,
    cases: Sequence[TrainingCase],
    anatomy: Anatomy,
    config: CalibrationConfig | None = None,
) -> Calibration:
    """Fit the network in the checkpoint ``path`` and write the file anew, with the temperature in its last layer.

    cases: those of its training. A temperature from an earlier call is part of the weights by now and is replaced. The
    labels are the same as before, the hash is not; a scope model that belongs to the old confidence is dropped.
    """
    config = config or CalibrationConfig()
    checkpoint = load_checkpoint(path)
    model = checkpoint.build()
    earlier = (checkpoint.calibration or {}).get("temperature", 1.0)
    trunks = procedural_cases(config.trunks, config.seed, anatomy, checkpoint.preprocessing)
    patients = [case for case in cases if case.real]
    fit, check = {}, {}
    for number, (modality, window) in enumerate({"ct": config.ct, "other": config.other}.items()):
        windows = held_out_windows(patients, trunks, window, config, config.seed + number)
        fit[modality], check[modality] = sampled_logits(model, windows, config)
    factor, lines = _fit(fit)
    body, structures = {}, {}
    for modality, (logits, labels) in check.items():
        steps = (
            (logits * earlier, labels, None),
            (logits / factor, labels, None),
            (logits / factor, labels, lines[modality]),
        )
        body[modality] = [error_of(*step) for step in steps]
        structures[modality] = [error_of(*step, structures=True) for step in steps]
    factor, lines = _fit({modality: _joined([fit[modality], check[modality]]) for modality in fit})
    found = Calibration(
        temperature=earlier * factor,
        lines=lines,
        ece=body,
        ece_structures=structures,
        fitted_on={
            "what": "synthesised windows of held-out procedural trunks and of the training label maps; no real voxel",
            "patients": [case.name for case in patients],
        }
        | asdict(config),
    )
    head = {name: checkpoint.weights[name].float() / factor for name in HEAD}
    add_to_checkpoint(path, {"calibration": asdict(found)}, head)
    return found


def _fit(samples: Mapping[str, Sample]) -> tuple[float, dict[str, dict[str, list[float]]]]:
    """One temperature for all modalities, then the lines of each."""
    factor = fit_temperature(*_joined(list(samples.values())))
    return factor, {modality: fit_lines(logits / factor, labels) for modality, (logits, labels) in samples.items()}


def _joined(samples: Sequence[Sample]) -> Sample:
    return tuple(torch.cat(part) for part in zip(*samples, strict=True))


def held_out_windows(
    patients: Sequence[TrainingCase],
    trunks: Sequence[TrainingCase],
    window: WindowConfig,
    config: CalibrationConfig,
    seed: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """``config.windows`` pairs (image (1, D, H, W), labels (D, H, W)) of both sorts of bodies."""
    weights = case_weights(trunks, patients, config.trunk_share)
    stream = WindowStream([*trunks, *patients], weights, window, seed, config.windows)
    return (stream[i] for i in range(len(stream)))


def case_weights(trunks: Sequence[TrainingCase], patients: Sequence[TrainingCase], trunk_share: float) -> list[float]:
    """How often each of [*trunks, *patients] is drawn; where there are none of one sort, the others have it all."""
    if not trunks or not patients:
        return [1.0] * (len(trunks) + len(patients))
    return [trunk_share / len(trunks)] * len(trunks) + [(1 - trunk_share) / len(patients)] * len(patients)


def sampled_logits(
    model: ThreeDME, windows: Iterator[tuple[Tensor, Tensor]], config: CalibrationConfig
) -> tuple[Sample, Sample]:
    """Of voxels in the body, from even windows and from odd ones."""
    generator = torch.Generator().manual_seed(config.seed)
    found: tuple[list, list] = ([], [])
    for number, (image, labels) in enumerate(windows):
        with torch.inference_mode():
            logits = model.half_logits(image[None])[0].flatten(1)  # (C, 8 d h w)
        target = space_to_depth(labels[None, None])[0].flatten().long()
        body = (space_to_depth(image[None])[0].flatten() > BODY_ABOVE) | (target > 0)
        where = body.nonzero()[:, 0]
        where = where[torch.randperm(len(where), generator=generator)[: config.voxels]]
        found[number % 2].append((logits[:, where].T.float().clone(), target[where]))
    return tuple(tuple(torch.cat(part) for part in zip(*half, strict=True)) for half in found)


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The T at which ``logits`` (N, C) / T are likeliest for ``labels`` (N,), between `LEAST` and `MOST`."""

    def loss(log_t: float) -> float:
        return float(F.cross_entropy(logits * np.exp(-log_t), labels))

    best = minimize_scalar(loss, bounds=(np.log(LEAST), np.log(MOST)), method="bounded", options={"xatol": 1e-3})
    return float(np.exp(best.x))


def fit_lines(logits: Tensor, labels: Tensor) -> dict[str, list[float]]:
    """Group -> [slope, offset] of the logit of the confidence, the likeliest for whether the chosen label is right."""
    confidence, chosen, correct = _answers(logits, labels)
    of = (chosen == 0, chosen > 0)
    return {group: fit_line(confidence[mask], correct[mask]) for group, mask in zip(GROUPS, of, strict=True)}


def fit_line(confidence: np.ndarray, correct: np.ndarray) -> list[float]:
    """confidence (N,) in 0..1 and correct (N,) bool -> [slope, offset]; [1, 0] without a voxel."""
    share = np.clip(confidence, 0.5 / 255, 254.5 / 255)
    logit, sign = np.log(share / (1 - share)), np.where(correct, 1.0, -1.0)

    def loss(line: np.ndarray) -> float:
        slope = np.exp(line[0])  # above 0: a surer voxel stays surer
        ridge = RIDGE * (line @ line)
        return float(np.logaddexp(0, -sign * (slope * logit + line[1])).mean() + ridge) if len(logit) else ridge

    best = minimize(loss, np.zeros(2), method="L-BFGS-B", bounds=((-2, 2), (-5, 5)))
    return [float(np.exp(best.x[0])), float(best.x[1])]


def error_of(
    logits: Tensor, labels: Tensor, lines: Mapping[str, Sequence[float]] | None = None, structures: bool = False
) -> float:
    """Expected calibration error of ``logits`` (N, C), through the ``lines`` as the segmenter applies them.

    structures: only where truth or prediction is one.
    """
    confidence, chosen, correct = _answers(logits, labels)
    if lines:
        level = np.rint(confidence * 255).astype(np.uint8)
        background, of_structures = (table(*lines[group])[level] / 255 for group in GROUPS)
        confidence = np.where(chosen > 0, of_structures, background)
    if structures:
        shown = (chosen > 0) | (labels.numpy() > 0)
        confidence, correct = confidence[shown], correct[shown]
    found: Reliability = reliability(confidence, correct)
    return found.error


def _answers(logits: Tensor, labels: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidence, chosen label and whether it is right, each (N,)."""
    confidence, chosen = logits.softmax(1).max(1)
    return confidence.numpy(), chosen.numpy(), (chosen == labels).numpy()
