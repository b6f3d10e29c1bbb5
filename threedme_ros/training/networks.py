"""What a training run may train: 3DME in one of its sizes, or a peer, behind one small interface."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from threedme_ros.anatomy import Anatomy
from threedme_ros.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from threedme_ros.model.config import SIZES, ModelConfig, Preprocessing
from threedme_ros.model.encoder import Features
from threedme_ros.model.layers import space_to_depth
from threedme_ros.model.threedme import ThreeDME
from threedme_ros.model.weights_file import read_format

from .peer_checkpoint import FORMAT as PEER_FORMAT
from .peer_checkpoint import PeerCheckpoint, load_peer, save_peer
from .peer_networks import PEERS, PeerConfig, PeerNetwork

Network = ThreeDME | PeerNetwork
"""Both have ``config.num_classes`` and ``predict``: (B, 1, D, H, W) -> labels and confidence (B, D, H, W)."""


def network_names() -> list[str]:
    return [*SIZES, *PEERS]


def build_network(name: str, num_classes: int, changes: Mapping | None = None) -> Network:
    """``name``: one of `network_names`; random weights from torch's generator. changes: fields of `ModelConfig`.

    In the memory layout that trains faster, as measured: 3DME's channels last, the peers' first (SegResNet takes half
    as long again the other way, DynUNet a tenth).
    """
    if name in PEERS:
        return PeerNetwork(PeerConfig(name, num_classes))
    config = ModelConfig.of_size(name, num_classes, **(changes or {}))
    return ThreeDME(config).to(memory_format=torch.channels_last_3d)


def logits_and_target(network: Network, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Features | None]:
    """What the loss compares, for image (B, 1, D, H, W) and labels (B, D, H, W): logits (B, C, ...), target (B, ...).

    3DME's are sub-voxels, (B, C, 8, D/2, H/2, W/2): the loss needs no full-resolution shuffle of its logits. Its
    features come with them; None of a peer.
    """
    if isinstance(network, ThreeDME):
        features = network.encoder(image)
        return network.sub_voxel_logits(features), space_to_depth(labels[:, None]), features
    return network(image), labels, None


def save_network(path: Path, network: Network, anatomy: Anatomy, preprocessing: Preprocessing, provenance: dict) -> str:
    """One safetensors file, weights in fp16; returns its hash. CheckpointError for a non-finite weight."""
    save = save_checkpoint if isinstance(network, ThreeDME) else save_peer
    return save(path, network, anatomy, preprocessing, provenance)


def load_network(path: str | Path) -> Checkpoint | PeerCheckpoint:
    """Whichever ``path`` holds. FileNotFoundError, or CheckpointError that says what does not fit."""
    return load_peer(path) if read_format(path) == PEER_FORMAT else load_checkpoint(path)
