"""From a Volume to its labels on exactly the same grid: what the node, the CLI and the evaluation call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from threedme_ros.inference.body import BodyCrop, Box
from threedme_ros.inference.channels import prepare_channels
from threedme_ros.inference.choice import LEAST_WINDOW_VOXELS, open_engine
from threedme_ros.inference.confidence import ConfidenceMap
from threedme_ros.inference.engines import DEFAULT_MIN_AGREEMENT, Engine, EngineError
from threedme_ros.inference.made_by import NOBODY, MadeBy
from threedme_ros.inference.memory import affordable_voxels
from threedme_ros.inference.preprocess import MODALITIES, PADDING_VALUE, Prepared, prepare, restore_labels
from threedme_ros.inference.scope import Scope, ScopeModel
from threedme_ros.inference.tiling import Window, plan_windows
from threedme_ros.volume import Volume

if TYPE_CHECKING:
    from threedme_ros.model.checkpoint import Checkpoint
    from threedme_ros.model.config import ModelConfig

MAX_TOKENS = 4096
"""Attention in a runtime without a fused kernel holds tokens^2 x heads floats: 270 MB with 4 heads."""

MAX_WINDOW_VOXELS = 256 * 256 * 128
WARM_UP_SHAPE = (112, 112, 128)
"""An adult abdomen at 3 mm: 34 cm along S, 34 along A, 38 along R."""


@dataclass(frozen=True, eq=False)
class Segmentation:
    """labels: uint8 structure ids, 0 background. confidence: uint8, 255 certain. Both on exactly the input's grid.

    timings_s: seconds of wall clock by stage: "preprocess", "network", "restore", "total".
    warnings: where the input was not what the checkpoint was made for, one sentence each.
    update: "full" where the network saw the whole volume; see `threedme_ros.inference.incremental` for the others.
    made_by: what ran, for this very volume. scope: whether the input is what the checkpoint was made for, a sentence
    among the warnings if not; None where the checkpoint cannot tell.
    """

    labels: Volume
    confidence: Volume
    timings_s: dict[str, float]
    warnings: tuple[str, ...] = ()
    update: str = "full"
    made_by: MadeBy = NOBODY
    scope: Scope | None = None


class Prediction(NamedTuple):
    """At the model's resolution: labels (D, H, W) uint8, confidence (D, H, W) float32; update: see `Segmentation`;
    since_full: see `MadeBy`."""

    labels: np.ndarray
    confidence: np.ndarray
    update: str = "full"
    since_full: int = 0


class Segmenter:
    """One checkpoint on one engine at a time, for one thread.

    engine: "auto", one of `ENGINES` to try first, or an engine. device: "auto", "cpu", "cuda" or "cuda:N". precision:
    one of `PRECISIONS`. An engine whose labels agree with torch's in fp32 on less than ``min_agreement`` of a probe
    volume, or that fails, makes way for the next (`EngineChain`); a named one that cannot even be made is an error.
    threads: 0 leaves the defaults; a number also sets torch's, for the whole process. max_window_voxels: larger volumes
    go through in tiles; None chooses by the network's size. modality: as for `prepare`, or one for each channel of a
    network of several, which the torch engine runs. cache_dir: where built engines are kept. body_crop: the network
    does not see the air around the body where that saves much; those voxels are background, with certainty.
    hung, opened: as for `open_engine`.
    Raises ValueError for a bad argument, CheckpointError for a scope or calibration that is none, and EngineError for
    an engine that cannot be made.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        engine: str | Engine = "auto",
        device: str = "auto",
        precision: str = "auto",
        threads: int = 0,
        min_agreement: float = DEFAULT_MIN_AGREEMENT,
        max_window_voxels: int | None = None,
        modality: str | Sequence[str] = "auto",
        cache_dir: Path | None = None,
        body_crop: bool = True,
        hung: Mapping[tuple[str, str], int] | None = None,
        opened: Callable[[str, str], None] = lambda name, device: None,
    ) -> None:
        channels = checkpoint.config.in_channels
        modalities = (modality,) * channels if isinstance(modality, str) else tuple(modality)
        if len(modalities) != channels or any(m not in MODALITIES for m in modalities):
            raise ValueError(
                f"modality {modality!r}: expected one of {MODALITIES}, or one for each of {channels} channels"
            )
        if threads < 0:
            raise ValueError(f"threads {threads}: expected 0 (the default) or more")
        self.checkpoint, self.modalities, self._threads = checkpoint, modalities, threads
        self._plan: tuple[Box | None, int] = (None, 0)  # of the last `predict`
        self._followed: MadeBy | None = None
        # other networks' checkpoints know of neither
        scope, calibration = (getattr(checkpoint, what, None) or {} for what in ("scope", "calibration"))
        self._scope = ScopeModel.from_dict(scope) if scope and channels == 1 else None
        self._judged: Scope | None = None  # the last volume that the network saw whole
        lines = calibration.get("lines")
        self._confidence = ConfidenceMap(lines) if lines and channels == 1 else None
        self._body = BodyCrop() if body_crop and channels == 1 else None
        self._affordable: dict[tuple[str, str, str], int] = {}
        window_voxels = max_window_voxels or default_window_voxels(checkpoint.config)
        plan_windows(WARM_UP_SHAPE, window_voxels)  # refuse a limit that no halo fits, before any volume
        if threads:
            torch.set_num_threads(threads)
        self._chain = open_engine(
            checkpoint,
            engine,
            device=device,
            precision=precision,
            threads=threads,
            min_agreement=min_agreement,
            cache_dir=cache_dir,
            probe_shape=WARM_UP_SHAPE,
            window_voxels=window_voxels,
            hung=hung,
            opened=opened,
        )

    @property
    def building(self) -> bool:
        """An engine is being made, checked, or built for a shape: that may take minutes. From any thread."""
        return self._chain.building

    @property
    def engine(self) -> Engine:
        """The one that runs now."""
        return self._chain.engine

    @property
    def max_window_voxels(self) -> int:
        """Larger volumes go through in tiles. It shrinks when memory runs out."""
        return self._chain.window_voxels

    def segment(self, volume: Volume | Sequence[Volume]) -> Segmentation:
        """``volume``, or the volumes of a network of several channels, all on one grid.

        Raises VolumeError for a volume the checkpoint cannot see, EngineError for a network that fails.
        """
        return self.segment_by(volume, lambda x, prepared: Prediction(*self.predict(x)))

    def segment_by(
        self, volume: Volume | Sequence[Volume], predict: Callable[[np.ndarray, Prepared], Prediction]
    ) -> Segmentation:
        """`segment`, with another way from the prepared (D, H, W) or (C, D, H, W) to its labels."""
        started = perf_counter()
        if isinstance(volume, Volume) and len(self.modalities) == 1:
            prepared = prepare(volume, self.checkpoint.preprocessing, self.modalities[0])
            x, warnings = prepared.x, prepared.warnings
        else:
            volumes = [volume] if isinstance(volume, Volume) else list(volume)
            channels = prepare_channels(volumes, self.checkpoint.preprocessing, self.modalities)
            prepared, volume = channels.first, volumes[0]
            x, warnings = (channels.x if len(volumes) > 1 else channels.x[0]), channels.warnings
        ready = perf_counter()
        prediction = predict(x, prepared)
        predicted = perf_counter()
        labels, confidence = restore_labels(prediction.labels, prediction.confidence, prepared)
        if self._confidence:
            confidence = self._confidence.apply(labels, confidence, prepared.modality)
        scope = self._judge(x, prediction, prepared)
        warnings += scope.warnings if scope else ()
        restored = perf_counter()
        timings = {
            "preprocess": ready - started,
            "network": predicted - ready,
            "restore": restored - predicted,
            "total": restored - started,
        }
        labels, confidence = volume.with_voxels(labels), volume.with_voxels(confidence)
        made_by = self._made_by(prediction.update, prediction.since_full)
        return Segmentation(labels, confidence, timings, warnings, prediction.update, made_by, scope)

    def _judge(self, x: np.ndarray, prediction: Prediction, prepared: Prepared) -> Scope | None:
        """An update is of a volume that was judged when it was seen whole: that verdict stands, and takes no time."""
        if self._scope and (prediction.update == "full" or self._judged is None):
            spacing = prepared.grid.spacing_mm[::-1]  # x, y, z -> D, H, W
            self._judged = self._scope.judge(x, prediction.labels, prediction.confidence, spacing)
        return self._judged

    def _made_by(self, update: str, since_full: int) -> MadeBy:
        engine = self.engine  # the one that ran: a failed one makes way before it is tried again
        names = (self.checkpoint.hash, engine.name, engine.precision, engine.device)
        # torch's default follows the environment, the other engines' the machine
        threads = self._threads or (torch.get_num_threads() if engine.name == "torch" else 0)
        return MadeBy(*names, threads, self.modalities, update, *self._plan, since_full)

    def follow(self, made_by: MadeBy | None) -> None:
        """From now on crop and tile as ``made_by`` did, whatever this machine and the volumes before would suggest.

        None: choose again. It is what makes a result of another process again, bit for bit.
        """
        self._followed = made_by

    def predict(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The prepared (D, H, W) or (C, D, H, W) -> labels uint8, confidence float32 (D, H, W), whole or in tiles.

        Tiles are made where the whole would not fit in the memory at hand. If it runs out all the same, it goes on with
        smaller windows, then, as after any failure, with the next engine.
        """
        shape = x.shape[-3:]
        labels, confidence = np.zeros(shape, np.uint8), np.ones(shape, np.float32)
        if followed := self._followed:
            box = followed.box
        else:
            box = self._body.box(x) if self._body else None
        inside = tuple(slice(*side) for side in box or ((0, n) for n in shape))
        seen, into = x[(..., *inside)], (labels[inside], confidence[inside])

        def whole(engine: Engine, window_voxels: int) -> tuple[np.ndarray, np.ndarray]:
            affordable = followed.window_voxels if followed else self._affordable_voxels(engine)
            limit = min(window_voxels, affordable)
            self._plan = (box, limit)
            _fill(engine, seen, plan_windows(seen.shape[-3:], limit), *into)
            return labels, confidence

        return self._chain.attempt(whole)

    def _affordable_voxels(self, engine: Engine) -> int:
        # asked once, before the engine holds memory of its own
        key = engine.name, engine.precision, engine.device
        if key not in self._affordable:
            voxels = affordable_voxels(engine, self.checkpoint.config)
            self._affordable[key] = max(voxels, LEAST_WINDOW_VOXELS)
        return self._affordable[key]

    def predict_windows(
        self, x: np.ndarray, windows: Sequence[Window], labels: np.ndarray, confidence: np.ndarray
    ) -> None:
        """`predict` where ``windows`` keep voxels, written into ``labels`` and ``confidence``; the rest stays."""
        self._chain.attempt(lambda engine, _: _fill(engine, x, windows, labels, confidence))

    def warm_up(self, shape: tuple[int, int, int] | None = None) -> float:
        """Build and run the engine once for volumes of ``shape`` (D, H, W) at the model's spacing. Returns seconds.

        Without a shape it is `WARM_UP_SHAPE`. The first volume whose padded shape is another still waits for its build.
        """
        started = perf_counter()
        shape = shape or WARM_UP_SHAPE
        channels = len(self.modalities)
        self.predict(np.full(shape if channels == 1 else (channels, *shape), PADDING_VALUE, np.float32))
        return perf_counter() - started

    def describe(self) -> dict[str, str]:
        """What diagnostics show now.

        engine, precision, device; agreement: with the reference on the probe, in percent; refused: the engines before
        this one and why they do not run, empty for the preferred one; checkpoint (hash) and size.
        """
        share = self._chain.agreement
        return {
            "engine": self.engine.name,
            "precision": self.engine.precision,
            "device": self.engine.device,
            "agreement": "" if share is None else f"{share:.3%}",
            "refused": "; ".join(self._chain.refused),
            "checkpoint": self.checkpoint.hash,
            "size": self.checkpoint.config.size,
        }

    def retire(self) -> None:
        """Given up while its engine hangs: should it come back, no other is tried. From any thread; never waits."""
        self._chain.retire()

    def close(self) -> None:
        """Free the engine. Calling it twice does no harm."""
        self._chain.close()


def _fill(engine: Engine, x: np.ndarray, windows: Sequence[Window], labels: np.ndarray, confidence: np.ndarray) -> None:
    for window in windows:
        part = window.cut(x) if x.ndim == 3 else np.stack([window.cut(channel) for channel in x])
        found, certainty = engine.run(part)
        certainty = certainty[window.kept_inside]
        if not np.isfinite(certainty.sum()):  # one NaN or infinity makes the sum one
            raise EngineError(f"{engine.name}: the network's output is not finite")
        labels[window.kept] = found[window.kept_inside]
        confidence[window.kept] = certainty


def default_window_voxels(config: ModelConfig) -> int:
    """The largest window, in voxels, whose attention and features stay within a few GB."""
    return min(MAX_WINDOW_VOXELS, MAX_TOKENS * config.token_size**3)
