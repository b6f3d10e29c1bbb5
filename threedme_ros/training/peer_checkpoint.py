"""A trained peer in one safetensors file, with what our own checkpoints carry; nothing is unpickled."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from threedme_ros.anatomy import Anatomy, AnatomyError
from threedme_ros.documents import parse_mapping
from threedme_ros.model.checkpoint import CheckpointError
from threedme_ros.model.config import Preprocessing
from threedme_ros.model.weights_file import load_strictly, read_weights, write_weights

from .peer_networks import PeerConfig, PeerNetwork

FORMAT = "threedme-peer-1"


@dataclass(frozen=True, eq=False)
class PeerCheckpoint:
    """As `threedme_ros.model.checkpoint.Checkpoint`, of a peer. `Segmenter` takes it with a `TorchEngine`."""

    config: PeerConfig
    anatomy: Anatomy
    preprocessing: Preprocessing
    weights: dict[str, Tensor]
    hash: str
    provenance: dict = field(default_factory=dict)

    def build(self) -> PeerNetwork:
        """The network in fp32, in eval mode. CheckpointError names every tensor that does not fit."""
        model = PeerNetwork(self.config)  # of one of three sizes, whatever a file says: 31 million weights at most
        load_strictly(model, self.weights, f"a {self.config.size}")
        return model.eval()


def save_peer(
    path: str | Path, model: PeerNetwork, anatomy: Anatomy, preprocessing: Preprocessing, provenance: dict
) -> str:
    """Write ``model`` atomically, its kernels in fp16; returns the hash. CheckpointError for a non-finite weight."""
    metadata = {
        "format": FORMAT,
        "config": json.dumps(asdict(model.config)),
        "anatomy": anatomy.to_json(),
        "preprocessing": json.dumps(asdict(preprocessing)),
        "provenance": json.dumps(provenance),
    }
    return write_weights(path, metadata, model.state_dict(), torch.float16)


def load_peer(path: str | Path) -> PeerCheckpoint:
    """Read and verify. FileNotFoundError, or CheckpointError that says what does not fit."""
    metadata, weights = read_weights(path, FORMAT)
    try:
        config = PeerConfig(**parse_mapping(metadata["config"]))
        anatomy = Anatomy.from_json(metadata["anatomy"])
        preprocessing = Preprocessing(**parse_mapping(metadata["preprocessing"]))
        provenance = parse_mapping(metadata["provenance"])
    except (KeyError, TypeError, ValueError, AnatomyError) as error:
        raise CheckpointError(f"{path}: metadata does not fit: {error}") from error
    return PeerCheckpoint(config, anatomy, preprocessing, weights, metadata["hash"], provenance)
