"""Temperature scaling, fitted on synthesised bodies that the network never saw.

Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2: the logits are divided by one number T,
chosen by the likelihood of data held out from training. The last layer is linear, so 1/T goes into its weights: labels
stay, every engine gives the calibrated confidence, and no operator is added.

Held out are windows that are harder than those of training: procedural trunks of other seeds, and the patients' label
maps, always bent, always synthesised, with more artefacts and noise. No voxel of a real scan is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional as F

from threedme_ros.anatomy import Anatomy
from threedme_ros.model.checkpoint import add_to_checkpoint, load_checkpoint
from threedme_ros.model.layers import space_to_depth
from threedme_ros.model.threedme import ThreeDME

from .augment import PADDING, WarpConfig
from .calibration_error import Reliability, reliability
from .data import TrainingCase, TrainingError, WindowConfig, WindowStream
from .procedural import procedural_cases
from .synthesis import SynthesisConfig

HEAD = ("decoder.head.weight", "decoder.head.bias")
LEAST, MOST = 0.2, 5.0
"""Temperatures that are looked at."""

BODY_ABOVE = PADDING + 0.1


@dataclass(frozen=True)
class CalibrationConfig:
    """What T is fitted on.

    windows: how many, one half to fit, the other to report on. voxels: taken of each, of those in the body. trunks:
    procedural ones, drawn for this alone. trunk_share: of the windows that show one of them; the others show a case of
    the training. window: how they are drawn.
    """

    windows: int = 64
    voxels: int = 20_000
    trunks: int = 8
    trunk_share: float = 0.5
    seed: int = 9_000_000
    window: WindowConfig = field(
        default_factory=lambda: WindowConfig(
            shapes=((96, 96, 96), (48, 112, 128), (32, 112, 128)),
            weights=(0.5, 0.3, 0.2),
            synthetic=1.0,
            organs=1.0,
            warp=WarpConfig(rotation_deg=25.0, share=1.0),
            synthesis=SynthesisConfig(acquisition=1.5, artefacts=0.4),
        )
    )

    def __post_init__(self) -> None:
        if self.windows < 2 or self.voxels < 1 or self.trunks < 0 or not 0 <= self.trunk_share <= 1:
            raise TrainingError(f"{self}: expected at least 2 windows, 1 voxel, no trunk and a share from 0 to 1")


@dataclass(frozen=True)
class Calibration:
    """What the checkpoint's metadata says. temperature: in its weights. ece_before, ece_after: on synthesised windows
    that T was not fitted on, over the body. fitted_on: in words and numbers.
    """

    temperature: float
    ece_before: float
    ece_after: float
    fitted_on: dict


def calibrate(
    path: str | Path,
    cases: Sequence[TrainingCase],
    anatomy: Anatomy,
    config: CalibrationConfig | None = None,
) -> Calibration:
    """Fit T for the network in the checkpoint ``path`` and write the file anew, with T in its last layer.

    cases: those of its training. A temperature from an earlier call is part of the weights by now and is replaced. The
    labels are the same as before, the hash is not; a scope model that belongs to the old confidence is dropped.
    """
    config = config or CalibrationConfig()
    checkpoint = load_checkpoint(path)
    model = checkpoint.build()
    earlier = (checkpoint.calibration or {}).get("temperature", 1.0)
    trunks = procedural_cases(config.trunks, config.seed, anatomy, checkpoint.preprocessing)
    fit, check = sampled_logits(model, held_out_windows([c for c in cases if c.real], trunks, config), config)
    factor = fit_temperature(*fit)
    head = {name: checkpoint.weights[name].float() / factor for name in HEAD}
    found = Calibration(
        temperature=earlier * factor,
        ece_before=error_at(*check, 1 / earlier),
        ece_after=error_at(*check, factor),
        fitted_on={
            "what": "synthesised windows of held-out procedural trunks and of the training label maps; no real voxel",
            "windows": config.windows,
            "voxels": len(fit[1]),
            "trunks": config.trunks,
            "patients": [case.name for case in cases if case.real],
            "seed": config.seed,
            "window": asdict(config.window),
        },
    )
    add_to_checkpoint(path, {"calibration": asdict(found)}, head)
    return found


def held_out_windows(
    patients: Sequence[TrainingCase], trunks: Sequence[TrainingCase], config: CalibrationConfig
) -> Iterator[tuple[Tensor, Tensor]]:
    """``config.windows`` pairs (image (1, D, H, W), labels (D, H, W)) of both kinds of bodies."""
    weights = case_weights(trunks, patients, config.trunk_share)
    stream = WindowStream([*trunks, *patients], weights, config.window, config.seed, config.windows)
    return (stream[i] for i in range(len(stream)))


def case_weights(trunks: Sequence[TrainingCase], patients: Sequence[TrainingCase], trunk_share: float) -> list[float]:
    """How often each of [*trunks, *patients] is drawn; where there are none of one sort, the others have it all."""
    if not trunks or not patients:
        return [1.0] * (len(trunks) + len(patients))
    return [trunk_share / len(trunks)] * len(trunks) + [(1 - trunk_share) / len(patients)] * len(patients)


def sampled_logits(
    model: ThreeDME, windows: Iterator[tuple[Tensor, Tensor]], config: CalibrationConfig
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Logits (N, C) float32 and labels (N,) int64 of voxels in the body, from even windows and from odd ones."""
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


def error_at(logits: Tensor, labels: Tensor, temperature: float) -> float:
    """Expected calibration error of ``logits`` (N, C) / ``temperature``."""
    return _reliability(logits / temperature, labels).error


def _reliability(logits: Tensor, labels: Tensor) -> Reliability:
    confidence, chosen = logits.softmax(1).max(1)
    return reliability(confidence.numpy(), (chosen == labels).numpy())
