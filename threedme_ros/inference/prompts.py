"""Encode a volume once, then segment whatever is clicked in it, refining click by click.

The shape of Meta's SAM 2 image predictor: `PromptSegmenter.set_volume` runs the heavy network, `PromptSegmenter.click`
only a light decoder on what that left behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from threedme_ros.inference.preprocess import PADDING_VALUE, Prepared, prepare, restore_labels
from threedme_ros.inference.segmenter import default_window_voxels
from threedme_ros.model.checkpoint import Checkpoint
from threedme_ros.model.config import ModelConfig
from threedme_ros.model.embedding import embed
from threedme_ros.model.prompt_decoder import Clicks, Projected, PromptDecoder, bells
from threedme_ros.model.semantic_prior import semantic_prior
from threedme_ros.volume import Volume, VolumeError

REACH_MM = 25.0
"""Standard deviation of the bell within which a correcting click changes the mask: elsewhere it was right already."""


class PromptError(ValueError):
    """Clicks that no mask can be made of; the message names the click and what was expected."""


@dataclass(frozen=True, eq=False)
class PromptResult:
    """mask: uint8, 1 inside. confidence: uint8, 255 certain. Both on exactly the volume's grid.

    seconds: wall clock of the clicks alone, the volume's encoding not counted.
    """

    mask: Volume
    confidence: Volume
    seconds: float


class PromptSegmenter:
    """One checkpoint and its prompt decoder, for one thread; holds the encoding of one volume at a time.

    device: "cpu", "cuda" or "cuda:N". modality: as for `prepare`. ValueError for a network of several input channels.
    """

    def __init__(
        self, checkpoint: Checkpoint, decoder: PromptDecoder, *, device: str = "cpu", modality: str = "auto"
    ) -> None:
        if checkpoint.config.in_channels != 1:
            raise ValueError(f"{checkpoint.config.in_channels} input channels: prompts expect a network of one")
        self.checkpoint, self.modality = checkpoint, modality
        self._device = torch.device(device)
        self._model = checkpoint.build().to(self._device, memory_format=torch.channels_last_3d)
        self._decoder = decoder.to(self._device).eval()
        self._volume: Volume | None = None
        self._prepared: Prepared | None = None
        self._projected: Projected | None = None
        self._so_far: tuple[tuple, Tensor | None] = ((), None)

    @property
    def description(self) -> str:
        """What makes the masks, as `MadeBy.description`."""
        return f"checkpoint={self.checkpoint.hash} prompt={self._decoder.hash} engine=torch precision=fp32"

    @property
    def volume(self) -> Volume | None:
        """The one that clicks refer to."""
        return self._volume

    @torch.inference_mode()
    def set_volume(self, volume: Volume) -> tuple[str, ...]:
        """Encode ``volume`` whole, for any number of clicks. Returns the warnings of `prepare`.

        Raises VolumeError for what the checkpoint cannot see; the volume before stays then.
        """
        prepared = prepare(volume, self.checkpoint.preprocessing, self.modality)
        stride = ModelConfig.STRIDE
        pad = [p for n in reversed(prepared.x.shape) for p in (0, -n % stride)]
        x = F.pad(torch.from_numpy(prepared.x)[None, None], pad, value=PADDING_VALUE)
        limit = default_window_voxels(self.checkpoint.config)
        if x.numel() > limit:
            raise VolumeError(
                f"{x.numel()} voxels at the model's spacing: expected at most {limit}, clicks need it in one piece"
            )
        self._projected = self._decoder.project(embed(self._model, x.to(self._device)))
        self._volume, self._prepared, self._so_far = volume, prepared, ((), None)
        return prepared.warnings

    def clear(self) -> None:
        """Forget the volume and free its encoding."""
        self._volume = self._prepared = self._projected = None
        self._so_far = ((), None)

    def inside(self, points_mm: np.ndarray) -> np.ndarray:
        """(N, 3) RAS+ mm -> (N,) bool: within the outer voxel faces of the volume."""
        return inside(self._encoded()[0], points_mm)

    @torch.inference_mode()
    def click(self, points_mm: np.ndarray, is_foreground: np.ndarray) -> PromptResult:
        """All clicks so far, (N, 3) RAS+ mm in the volume's frame and (N,) bool -> the structure they mean.

        The first foreground click names the structure, the others correct it around them. Of the mask, the connected
        parts that hold a foreground click stay. Raises PromptError without a volume, without a foreground click, and
        for a click outside the volume.
        """
        started = perf_counter()
        volume, prepared, projected = self._encoded()
        points_mm, is_foreground = _checked(points_mm, is_foreground)
        if not (within := inside(volume, points_mm)).all():
            worst = ", ".join(f"{v:.1f}" for v in points_mm[~within][0])
            raise PromptError(f"click at ({worst}) mm: expected a point inside the volume")
        # RAS+ indices of the model's grid (i=R, j=A, k=S) -> (d, h, w)
        voxels = prepared.grid.to_index(points_mm)[:, ::-1].astype(np.float32)
        spacing_mm = prepared.grid.spacing_mm[::-1]
        # the click that names the structure first, the others in their order
        order = np.concatenate(
            [[np.argmax(is_foreground)], np.delete(np.arange(len(voxels)), np.argmax(is_foreground))]
        )
        places, sides = (torch.from_numpy(a[order]).to(self._device) for a in (voxels, is_foreground))
        clicks = Clicks(places, sides, spacing_mm)
        d, h, w = prepared.x.shape
        probability = torch.sigmoid(self._logits(projected, clicks)[:d, :h, :w]).cpu().numpy()
        mask = clicked_parts(probability > 0.5, voxels[is_foreground])
        confidence = np.where(mask, probability, 1 - np.minimum(probability, 0.5))
        labels, certainty = restore_labels(mask.astype(np.uint8), confidence, prepared)
        return PromptResult(volume.with_voxels(labels), volume.with_voxels(certainty), perf_counter() - started)

    def _logits(self, projected: Projected, clicks: Clicks) -> Tensor:
        """(D, H, W): click by click, each later one changing what lies within its reach.

        What the clicks before the last gave is kept, so that one more click costs one run of the decoder.
        """
        places, sides = clicks.voxels.tolist(), clicks.foreground.tolist()
        said = tuple((*place, side) for place, side in zip(places, sides, strict=True))
        known, logits = self._so_far
        if known != said[: len(known)]:
            known, logits = (), None
        for count in range(len(known) + 1, len(said) + 1):
            now = Clicks(clicks.voxels[:count], clicks.foreground[:count], clicks.spacing_mm)
            new = self._decoder(projected, now).float() + semantic_prior(projected.embedding, now)
            if logits is None:
                logits = new[0, 0]
                continue
            last = Clicks(now.voxels[-1:], torch.ones_like(now.foreground[-1:]), now.spacing_mm)
            reach = bells(last, True, logits.shape, 1, (REACH_MM,))[0]
            logits = torch.lerp(logits, new[0, 0], reach)
        self._so_far = (said, logits)
        return logits

    def _encoded(self) -> tuple[Volume, Prepared, Projected]:
        if self._projected is None:
            raise PromptError("no volume yet: expected one before the first click")
        return self._volume, self._prepared, self._projected


def inside(volume: Volume, points_mm: np.ndarray) -> np.ndarray:
    """(N, 3) RAS+ mm -> (N,) bool: within the outer voxel faces of ``volume``."""
    index = volume.grid.to_index(points_mm)
    return ((index >= -0.5) & (index <= np.array(volume.shape) - 0.5)).all(1)


def clicked_parts(mask: np.ndarray, voxels: np.ndarray) -> np.ndarray:
    """The connected parts of ``mask`` (D, H, W) bool that hold one of ``voxels`` (N, 3); all of it if none does."""
    parts, count = ndimage.label(mask)
    if count < 2:
        return mask
    at = np.clip(np.rint(voxels).astype(int), 0, np.array(mask.shape) - 1)
    clicked = np.unique(parts[tuple(at.T)])
    clicked = clicked[clicked > 0]
    return np.isin(parts, clicked) if len(clicked) else mask


def _checked(points_mm: np.ndarray, is_foreground: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    points_mm = np.asarray(points_mm, np.float64)
    is_foreground = np.asarray(is_foreground, bool)
    if points_mm.ndim != 2 or points_mm.shape[1] != 3 or is_foreground.shape != points_mm.shape[:1]:
        raise PromptError(f"clicks of shape {points_mm.shape} and {is_foreground.shape}: expected (N, 3) and (N,)")
    if not np.isfinite(points_mm).all():
        raise PromptError(f"clicks {points_mm.tolist()}: expected finite mm")
    if not is_foreground.any():
        raise PromptError(f"{len(points_mm)} clicks, none in the foreground: expected at least one")
    return points_mm, is_foreground
