"""From encoder features to one class a volume: attention pooling, and a file format for the trained whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from threedme_ros.documents import parse_json, parse_mapping
from threedme_ros.model.config import ModelConfig
from threedme_ros.model.encoder import Encoder
from threedme_ros.model.layers import flatten_nodes
from threedme_ros.model.weights_file import CheckpointError, built, read_weights, write_weights

FORMAT = "threedme-classifier-1"
MAX_EDGE = 1024
"""Voxels along an axis of what a classifier sees."""


class AttentionPool(nn.Module):
    """Gated attention pooling (Ilse et al. 2018, eq. 7 and 9): z = sum_k a_k h_k over the places k of a feature map,

    a_k = softmax_k(w^T (tanh(V h_k) * sigmoid(U h_k))). (B, N, C) -> z (B, C), a (B, N).
    """

    def __init__(self, channels: int, hidden: int = 64) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.value, self.gate = nn.Linear(channels, hidden), nn.Linear(channels, hidden)
        self.score = nn.Linear(hidden, 1)

    def forward(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        nodes = self.norm(nodes)
        score = self.score(torch.tanh(self.value(nodes)) * torch.sigmoid(self.gate(nodes)))  # (B, N, 1)
        attention = score.float().softmax(dim=1).to(nodes.dtype)
        return (attention * nodes).sum(dim=1), attention[..., 0]


class Classifier(nn.Module):
    """3DME with a classification head. Input (B, in_channels, D, H, W) in [-1, 1], D, H, W multiples of 16."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if not config.vit:
            raise ValueError(f"vit {config.vit}: expected a ViT branch, whose tokens a classifier pools")
        self.config = config
        self.encoder = Encoder(config)
        self.local_pool = AttentionPool(config.channels[2])
        self.global_pool = AttentionPool(config.vit_dim)
        self.head = nn.Linear(config.channels[2] + config.vit_dim, config.num_classes)

    def embed(self, x: Tensor) -> Tensor:
        """(B, C8 + vit_dim): both branches, pooled."""
        stride = self.config.STRIDE
        if any(n % stride for n in x.shape[2:]):
            raise ValueError(f"input of shape {tuple(x.shape)}: expected D, H, W to be multiples of {stride}")
        features = self.encoder(x)
        local, _ = self.local_pool(flatten_nodes(features.level8))
        whole, _ = self.global_pool(flatten_nodes(features.tokens))
        return torch.cat([local, whole], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes)."""
        return self.head(self.embed(x))


@dataclass(frozen=True, eq=False)
class ClassifierCheckpoint:
    """A trained classifier. classes: their names in logit order. input_shape: (D, H, W) that images are brought to."""

    config: ModelConfig
    classes: tuple[str, ...]
    input_shape: tuple[int, int, int]
    weights: dict[str, Tensor]
    hash: str
    provenance: dict = field(default_factory=dict)

    def build(self) -> Classifier:
        """The network in fp32, in eval mode. CheckpointError names every tensor that does not fit."""
        return built(lambda: Classifier(self.config), self.weights, f"a {self.config.size} classifier")


def save_classifier(
    path: str | Path,
    model: Classifier,
    classes: Sequence[str],
    input_shape: tuple[int, int, int],
    provenance: dict,
    dtype: torch.dtype = torch.float16,
) -> str:
    """Write ``model`` atomically, weights as ``dtype``; returns the hash. See `write_weights` for errors."""
    metadata = {
        "format": FORMAT,
        "config": json.dumps(asdict(model.config)),
        "classes": json.dumps(list(classes)),
        "input_shape": json.dumps(list(input_shape)),
        "provenance": json.dumps(provenance),
    }
    return write_weights(path, metadata, model.state_dict(), dtype)


def load_classifier(path: str | Path) -> ClassifierCheckpoint:
    """Read and verify a classifier. FileNotFoundError, or CheckpointError that says what does not fit."""
    metadata, weights = read_weights(path, FORMAT)
    try:
        config = ModelConfig(**parse_mapping(metadata["config"]))
        classes, input_shape = tuple(parse_json(metadata["classes"])), tuple(parse_json(metadata["input_shape"]))
        provenance = parse_mapping(metadata["provenance"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: metadata does not fit: {error}") from error
    if len(classes) != config.num_classes:
        raise CheckpointError(f"{path}: {len(classes)} class names for {config.num_classes} classes")
    if not all(isinstance(name, str) and name.isprintable() for name in classes):
        raise CheckpointError(f"{path}: classes {classes!r}: expected printable names")
    if len(input_shape) != 3 or not all(type(n) is int and 1 <= n <= MAX_EDGE for n in input_shape):
        raise CheckpointError(f"{path}: input_shape {input_shape!r}: expected three integers from 1 to {MAX_EDGE}")
    return ClassifierCheckpoint(config, classes, input_shape, weights, metadata["hash"], provenance)
