"""A foundation: the pretrained encoder, what it was pretrained on, and nothing of any task."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import torch
from torch import Tensor

from threedme_ros.documents import parse_mapping
from threedme_ros.model.config import ModelConfig, Preprocessing
from threedme_ros.model.encoder import Encoder
from threedme_ros.model.weights_file import CheckpointError, load_strictly, read_weights, write_weights

FORMAT = "threedme-foundation-1"
STEM = "stem2.conv.weight"
_NOT_THE_ENCODERS = ("size", "num_classes", "in_channels")


@dataclass(frozen=True, eq=False)
class Foundation:
    """``weights``: the state_dict of an `Encoder` of ``config`` (whose num_classes means nothing here)."""

    config: ModelConfig
    preprocessing: Preprocessing
    weights: dict[str, Tensor]
    hash: str
    provenance: dict = field(default_factory=dict)

    def initialise(self, encoder: Encoder) -> None:
        """Load the pretrained weights into ``encoder``, e.g. that of a new `ThreeDME`.

        Strict: CheckpointError names every field of the config and every tensor that does not fit. One difference is
        bridged: an encoder of n input channels (four MR sequences, say) takes a one-channel foundation's first
        convolution n times over, divided by n, so that n equal channels give what one gave.
        """
        other = [
            f"{f.name} {getattr(encoder.config, f.name)}, the foundation has {getattr(self.config, f.name)}"
            for f in fields(ModelConfig)
            if f.name not in _NOT_THE_ENCODERS and getattr(encoder.config, f.name) != getattr(self.config, f.name)
        ]
        if other:
            raise CheckpointError(f"the encoder is not the foundation's: {'; '.join(other)}")
        weights = dict(self.weights)
        channels = encoder.config.in_channels
        stem = weights.get(STEM)
        if self.config.in_channels == 1 and channels > 1 and stem is not None and stem.shape[1:] == (8, 3, 3, 3):
            # (C2, 8, 3, 3, 3) -> (C2, channels * 8, 3, 3, 3), the order of `space_to_depth`
            weights[STEM] = stem.float().repeat(1, channels, 1, 1, 1) / channels
        load_strictly(encoder, weights, f"a {self.config.size} encoder of {channels} input channels")


def save_foundation(
    path: str | Path,
    encoder: Encoder,
    preprocessing: Preprocessing,
    provenance: dict,
    dtype: torch.dtype = torch.float32,
) -> str:
    """Write ``encoder`` as a foundation, whole or not at all; returns the hash. See `write_weights` for errors."""
    metadata = {
        "format": FORMAT,
        "config": json.dumps(asdict(encoder.config)),
        "preprocessing": json.dumps(asdict(preprocessing)),
        "provenance": json.dumps(provenance),
    }
    return write_weights(path, metadata, encoder.state_dict(), dtype)


def load_foundation(path: str | Path) -> Foundation:
    """Read and verify a foundation. FileNotFoundError, or CheckpointError that says what does not fit."""
    metadata, weights = read_weights(path, FORMAT)
    try:
        config = ModelConfig(**parse_mapping(metadata["config"]))
        preprocessing = Preprocessing(**parse_mapping(metadata["preprocessing"]))
        provenance = parse_mapping(metadata["provenance"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: metadata does not fit: {error}") from error
    return Foundation(config, preprocessing, weights, metadata["hash"], provenance)
