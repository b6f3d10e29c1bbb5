"""After the first volume only what changed: the network sees windows around it, the rest keeps its labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from threedme_ros.inference.change import BLOCK, block_means, changed_blocks, computed_voxels, cover
from threedme_ros.inference.preprocess import Prepared
from threedme_ros.inference.segmenter import WARM_UP_SHAPE, Prediction, Segmentation, Segmenter
from threedme_ros.inference.tiling import STRIDE, Window
from threedme_ros.volume import Grid, Volume

UPDATES = ("full", "incremental", "unchanged")
"""What `Segmentation.update` tells: the network saw the whole volume, windows of it, or nothing of it."""


@dataclass(frozen=True)
class UpdatePolicy:
    """When a volume is an update of the last one, and what of it the network sees.

    threshold: a block of 4^3 voxels has changed if its mean moved by more, in the network's range [-1, 1] (0.02 is 8 HU
    for a CT window of 800 HU: metal, fluid and resected tissue move it further, noise of 20 HU does not). reach: that
    many blocks around a changed one get new labels, too. halo: what the network sees around those, in voxels. sizes:
    edges of the windows, multiples of 16: each is an engine of its own; the smallest that holds a change is taken.
    most: beyond this share of the volume's voxels in windows, a full pass is taken. full_every: and at least every so
    many volumes, 0 for never.
    """

    threshold: float = 0.02
    reach: int = 1
    halo: int = 16
    sizes: tuple[int, ...] = (64, 80)
    most: float = 0.3
    full_every: int = 20

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", tuple(self.sizes))
        least = 2 * self.halo + STRIDE
        if not self.sizes or any(size % STRIDE or size < least for size in self.sizes):
            raise ValueError(
                f"sizes {self.sizes}: expected multiples of {STRIDE} from {least}, for a halo of {self.halo}"
            )
        if not 0 < self.threshold < 2 or self.reach < 0 or self.halo < 0 or self.full_every < 0:
            raise ValueError(f"{self}: expected a threshold between 0 and 2, and no negative number")


@dataclass(frozen=True, eq=False)
class _Known:
    """The last result. x: the voxels that its labels were made from; means: of its blocks."""

    frame_id: str
    grid: Grid
    modality: str
    engine: tuple[str, str]
    x: np.ndarray
    means: np.ndarray
    labels: np.ndarray
    confidence: np.ndarray
    since_full: int


class IncrementalSegmenter:
    """``segmenter`` (of one input channel), for a stream of volumes of one patient; used from one thread.

    A volume on the last one's grid, in its frame, modality and on the same engine is an update of it; any other gets a
    full pass, and so does one after an error. Where nothing changed, no label does: noise does not make them flicker.

    A window alone gives other labels than the whole volume does, whose context it lacks: on one voxel in ten around a
    change. So it is seen twice, with the voxels before and after, and a label changes where these two differ: context
    cancels out. What a change does to labels far away (through the attention that sees everything) waits for the next
    full pass.
    """

    def __init__(self, segmenter: Segmenter, policy: UpdatePolicy | None = None) -> None:
        if segmenter.checkpoint.config.in_channels > 1:
            raise ValueError(f"{segmenter.checkpoint.config.in_channels} input channels: expected one")
        self._segmenter = segmenter
        self.policy = policy or UpdatePolicy()
        self._known: _Known | None = None

    @property
    def checkpoint(self):
        return self._segmenter.checkpoint

    @property
    def building(self) -> bool:
        """As `Segmenter.building`."""
        return self._segmenter.building

    def segment(self, volume: Volume) -> Segmentation:
        """As `Segmenter.segment`; ``update`` in the result tells which of `UPDATES` it was."""
        known, self._known = self._known, None  # an error forgets it
        segmentation = self._segmenter.segment_by(
            volume, lambda x, seen: self._predict(x, seen, volume.frame_id, known)
        )
        return segmentation

    def forget(self) -> None:
        """The next volume gets a full pass."""
        self._known = None

    def warm_up(self, shape: tuple[int, int, int] | None = None) -> float:
        """As `Segmenter.warm_up`, for the windows of updates, too. The next volume gets a full pass."""
        self.forget()
        shape = shape or WARM_UP_SHAPE
        seconds = self._segmenter.warm_up(shape)
        padded = [-(-n // STRIDE) * STRIDE for n in shape]
        for window in {tuple(min(size, n) for n in padded) for size in self.policy.sizes}:
            seconds += self._segmenter.warm_up(window)
        return seconds

    def describe(self) -> dict[str, str]:
        return self._segmenter.describe()

    def retire(self) -> None:
        """As `Segmenter.retire`."""
        self._segmenter.retire()

    def close(self) -> None:
        self._known = None
        self._segmenter.close()

    def _predict(self, x: np.ndarray, seen: Prepared, frame_id: str, known: _Known | None) -> Prediction:
        means = block_means(x)
        windows = self._windows(x.shape, seen, frame_id, known, means)
        if windows is None:
            update, since_full = "full", 0
            labels, confidence = self._segmenter.predict(x)
        elif not windows:
            update, since_full = "unchanged", known.since_full + 1
            labels, confidence, x, means = known.labels, known.confidence, known.x, known.means
        else:
            update, since_full = "incremental", known.since_full + 1
            labels, confidence = self._updated(x, means, known, windows)
            if self._engine() == known.engine:
                x, means = known.x, known.means
            else:  # one failed half way: never a result that two engines made
                update, since_full = "full", 0
                labels, confidence = self._segmenter.predict(x)
        engine = self._engine()
        now = _Known(frame_id, seen.grid, seen.modality, engine, x, means, labels, confidence, since_full)
        self._known = now
        return Prediction(labels, confidence, update, since_full)

    def _engine(self) -> tuple[str, str]:
        engine = self._segmenter.engine
        return engine.name, engine.precision

    def _windows(self, shape, seen: Prepared, frame_id: str, known: _Known | None, means: np.ndarray):
        """What the network has to see again; None for a full pass."""
        policy = self.policy
        if known is None or (policy.full_every and known.since_full + 1 >= policy.full_every):
            return None
        same = (known.frame_id, known.modality, known.engine) == (frame_id, seen.modality, self._engine())
        if not same or not known.grid.matches(seen.grid):
            return None
        changed = changed_blocks(known.means, means, policy.threshold, policy.reach)
        windows = cover(changed, shape, policy.sizes, policy.halo)
        return windows if computed_voxels(windows) <= policy.most * prod(shape) else None

    def _updated(
        self, x: np.ndarray, means: np.ndarray, known: _Known, windows: Sequence[Window]
    ) -> tuple[np.ndarray, np.ndarray]:
        """New labels and confidence: the labels a copy, since the last result may still show the old ones.

        What else ``known`` holds (voxels, their means, confidence) is nobody else's, and brought up to date in place.
        """
        labels, confidence = known.labels.copy(), known.confidence
        before, now = ((np.empty_like(labels), np.empty_like(confidence)) for _ in range(2))
        self._segmenter.predict_windows(known.x, windows, *before)
        self._segmenter.predict_windows(x, windows, *now)
        for kept in (window.kept for window in windows):
            differs = before[0][kept] != now[0][kept]
            labels[kept][differs] = now[0][kept][differs]
            confidence[kept][differs] = now[1][kept][differs]
            known.x[kept] = x[kept]
            blocks = tuple(slice(axis.start // BLOCK, -(-axis.stop // BLOCK)) for axis in kept)  # whole ones
            known.means[blocks] = means[blocks]
        return labels, confidence
