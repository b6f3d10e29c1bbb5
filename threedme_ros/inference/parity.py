"""The gate that an engine passes before it sees a patient: the same labels as torch in fp32 on a known volume.

The probe is the phantom, an abdomen with a known answer in space, in the network's own spacing. It has the shape that
is warmed up anyway, so the engine that is judged is the one that runs, and no further engine is built for the judging.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from threedme_ros.inference.engines import Engine, EngineError
from threedme_ros.inference.engines.build_cache import cached_build, default_cache_dir
from threedme_ros.inference.engines.torch_engine import TorchEngine
from threedme_ros.inference.export import SOURCE_DIGEST
from threedme_ros.inference.preprocess import prepare
from threedme_ros.phantom import phantom

if TYPE_CHECKING:
    from threedme_ros.model.checkpoint import Checkpoint

MIN_DICE = 0.8
"""Of every structure that has `MIN_STRUCTURE_VOXELS` in the probe: within half a percent of all voxels, organs can be
lost. bf16 keeps 0.95 with the shipped network, a structure of 90 voxels included."""

MIN_STRUCTURE_VOXELS = 500
SEED = 20260601
COMPRESSION = 1


@dataclass(frozen=True, eq=False)
class Probe:
    """x: (D, H, W) float32 in [-1, 1], or (C, D, H, W). labels: (D, H, W) uint8, by torch in fp32 on the CPU."""

    x: np.ndarray
    labels: np.ndarray


def make_probe(checkpoint: Checkpoint, shape: tuple[int, int, int], cache_dir: Path | None = None) -> Probe:
    """The probe of ``shape`` (D, H, W), multiples of 16, and the reference's answer, computed once a checkpoint."""
    image, _ = phantom(shape[::-1], checkpoint.preprocessing.spacing_mm, seed=SEED)
    x = prepare(image, checkpoint.preprocessing, "ct").x
    if checkpoint.config.in_channels > 1:
        x = np.stack([x] * checkpoint.config.in_channels)

    def reference() -> bytes:
        labels, _ = TorchEngine(checkpoint.build(), precision="fp32").run(x)
        return zlib.compress(labels.tobytes(), COMPRESSION)

    key = (checkpoint.hash, SOURCE_DIGEST, torch.__version__, x.shape, hashlib.sha256(x.tobytes()).hexdigest())
    stored = cached_build(cache_dir or default_cache_dir(), "parity", key, reference)
    return Probe(x, np.frombuffer(zlib.decompress(stored), np.uint8).reshape(shape))


@dataclass(frozen=True)
class Parity:
    """agreement: the share of the probe's voxels with the reference's label. worst_dice: the least over the structures
    that count, and worst_structure its id; 1 and 0 where none does.
    """

    agreement: float
    worst_dice: float
    worst_structure: int


def compare(engine: Engine, probe: Probe) -> Parity:
    """``engine`` against the reference on the probe.

    Raises EngineError for an output that is no probability, or of the wrong shape or type.
    """
    labels, confidence = engine.run(probe.x)
    if labels.shape != probe.labels.shape or labels.dtype != np.uint8 or confidence.shape != labels.shape:
        raise EngineError(f"{engine.name}: labels {labels.dtype} {labels.shape} for a window of {probe.x.shape}")
    if not np.isfinite(confidence).all() or confidence.min() < 0 or confidence.max() > 1 + 1e-3:
        raise EngineError(f"{engine.name}: on the probe volume its output is not finite, or no probability")
    same = labels == probe.labels
    sizes, found, shared = (
        np.bincount(of.ravel(), minlength=256) for of in (probe.labels, labels, np.where(same, labels, 0))
    )
    counting = [structure for structure in range(1, 256) if sizes[structure] >= MIN_STRUCTURE_VOXELS]
    dice = {structure: 2 * shared[structure] / (sizes[structure] + found[structure]) for structure in counting}
    worst = min(dice, key=dice.get, default=0)
    return Parity(float(same.mean()), float(dice.get(worst, 1.0)), worst)
