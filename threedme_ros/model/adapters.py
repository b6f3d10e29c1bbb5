"""One foundation, many tasks: what a task changes of it, kept apart from it in a small file.

Three methods, from light to heavy: "frozen" trains the task's head on a fixed encoder, "lora" adds low-rank updates to
the encoder's linear layers and trains its norms' scale and shift, "full" trains everything. An adapter file holds only
what was trained, and the hash of the foundation it belongs to.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from threedme_ros.documents import parse_mapping
from threedme_ros.model.checkpoint import FORMAT as CHECKPOINT_FORMAT
from threedme_ros.model.checkpoint import load_checkpoint
from threedme_ros.model.classifier import Classifier
from threedme_ros.model.config import ModelConfig, is_number
from threedme_ros.model.foundation import Foundation, load_foundation
from threedme_ros.model.layers import VoxelNorm, freeze_norms
from threedme_ros.model.threedme import ThreeDME
from threedme_ros.model.weights_file import (
    CheckpointError,
    misfits,
    not_finite,
    planned,
    read_format,
    read_weights,
    write_weights,
)

FORMAT = "threedme-adapter-1"
METHODS = ("frozen", "lora", "full")
KINDS: dict[str, type[nn.Module]] = {"segmentation": ThreeDME, "classification": Classifier}


class LowRank(nn.Module):
    """W0 -> W0 + (alpha / rank) B A, with W0 fixed (Hu et al. 2021, LoRA, eq. 3). B starts at zero.

    A (rank, in), B (out, rank), as a parametrization of a linear layer's weight (out, in): it serves the ViT's linear
    layers and the pointwise convolutions of the graph branch and of plane attention alike.
    """

    def __init__(self, shape: tuple[int, int], rank: int, alpha: float) -> None:
        super().__init__()
        rank = min(rank, *shape)
        self.a = nn.Parameter(torch.empty(rank, shape[1]))
        self.b = nn.Parameter(torch.zeros(shape[0], rank))
        self.scale = alpha / rank
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.scale * (self.b @ self.a)


@dataclass(frozen=True)
class Adaptation:
    """How a foundation is adapted; ``rank`` and ``alpha`` are those of "lora". ValueError names what is wrong."""

    method: str = "lora"
    rank: int = 8
    alpha: float = 16.0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method {self.method!r}: expected one of {METHODS}")
        if type(self.rank) is not int or not 1 <= self.rank <= 1024:
            raise ValueError(f"rank {self.rank!r}: expected an integer from 1 to 1024")
        if not is_number(self.alpha) or not self.alpha > 0:
            raise ValueError(f"alpha {self.alpha!r}: expected a positive number")

    def apply(self, model: nn.Module, new_stem: bool = False) -> None:
        """Freeze, and add what is to be trained to ``model`` (with an ``encoder``, all else being the task's own).

        new_stem: also train the first layer, for inputs of other channels than the foundation's.
        """
        if self.method == "full":
            return
        model.encoder.requires_grad_(False)
        if self.method == "lora":
            for layer in [m for m in model.encoder.modules() if isinstance(m, nn.Linear)]:
                update = LowRank(tuple(layer.weight.shape), self.rank, self.alpha).to(layer.weight.device)
                parametrize.register_parametrization(layer, "weight", update)
            for norm in [m for m in model.encoder.modules() if isinstance(m, nn.LayerNorm | VoxelNorm)]:
                norm.requires_grad_(True)
        if new_stem:
            model.encoder.stem2.requires_grad_(True)

    def train_mode(self, model: nn.Module) -> None:
        """``model.train()``, but a shared encoder keeps the statistics of its norms: they are the foundation's."""
        model.train()
        if self.method != "full":
            freeze_norms(model.encoder)


def trained_share(model: nn.Module) -> tuple[int, int]:
    """Numbers of trained and of all parameters."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, trained in sizes if trained), sum(n for n, _ in sizes)


def adapted_state(model: nn.Module) -> dict[str, Tensor]:
    """What makes ``model`` differ from its foundation, by name: the trained parameters, and the statistics of norms
    that are not the foundation's."""
    trained = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    shared = any(not p.requires_grad for p in model.encoder.parameters())
    own = {name: b for name, b in model.named_buffers() if not (shared and name.startswith("encoder."))}
    return trained | own


def merge(model: nn.Module) -> None:
    """Fold every low-rank update into its weight, in place: the names, the cost and the export of a plain network."""
    for module in model.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)


@dataclass(frozen=True, eq=False)
class Adapter:
    """What one task adds to the foundation with the hash ``base``.

    kind: of `KINDS`. config: the adapted network's. new_stem: whether the first layer was trained. task: what
    the kind needs to be used (label table or classes, preprocessing). weights: exactly the `adapted_state`.
    """

    kind: str
    base: str
    config: ModelConfig
    adaptation: Adaptation
    new_stem: bool
    task: Mapping
    weights: Mapping[str, Tensor]
    hash: str
    provenance: Mapping = field(default_factory=dict)

    def over(self, foundation: Foundation) -> nn.Module:
        """The adapted network, merged, fp32, in eval mode. CheckpointError if the two do not belong together; memory
        is taken only once all tensors fit."""
        if foundation.hash != self.base:
            raise CheckpointError(f"adapter of the foundation {self.base}: this one is {foundation.hash}")

        def build() -> nn.Module:
            return adapted_model(self.kind, self.config, foundation, self.adaptation, self.new_stem)

        if problems := misfits(adapted_state(planned(build)), self.weights):
            raise CheckpointError(f"adapter does not fit the foundation: {'; '.join(problems)}")
        model = build()
        model.load_state_dict({name: t.float() for name, t in self.weights.items()}, strict=False)
        merge(model)
        if bad := not_finite(model.state_dict()):
            raise CheckpointError(f"adapter and foundation give weights that are not finite in {', '.join(bad)}")
        return model.requires_grad_(False).eval()


def adapted_model(
    kind: str, config: ModelConfig, foundation: Foundation | None, adaptation: Adaptation, new_stem: bool
) -> nn.Module:
    """A network of ``kind`` on the foundation (None: random weights), ready to train. CheckpointError, ValueError."""
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r}: expected one of {tuple(KINDS)}")
    if foundation is None and adaptation.method != "full":
        raise ValueError(f"method {adaptation.method!r} without a foundation: expected 'full', or name a foundation")
    model = KINDS[kind](config)
    if foundation is not None:
        foundation.initialise(model.encoder)
    adaptation.apply(model, new_stem)
    return model


def save_adapter(path: str | Path, model: nn.Module, adapter: Adapter) -> str:
    """Write the `adapted_state` of ``model`` with what ``adapter`` says of them, atomically; returns the hash."""
    metadata = {
        "format": FORMAT,
        "kind": adapter.kind,
        "base": adapter.base,
        "config": json.dumps(asdict(adapter.config)),
        "adaptation": json.dumps(asdict(adapter.adaptation)),
        "new_stem": json.dumps(adapter.new_stem),
        "task": json.dumps(dict(adapter.task)),
        "provenance": json.dumps(dict(adapter.provenance)),
    }
    return write_weights(path, metadata, adapted_state(model), torch.float32)


def load_adapter(path: str | Path) -> Adapter:
    """Read and verify an adapter. FileNotFoundError, or CheckpointError that says what does not fit."""
    metadata, weights = read_weights(path, FORMAT)
    try:
        return Adapter(
            _kind(metadata["kind"]),
            metadata["base"],
            ModelConfig(**parse_mapping(metadata["config"])),
            Adaptation(**parse_mapping(metadata["adaptation"])),
            _flag(metadata["new_stem"]),
            parse_mapping(metadata["task"]),
            weights,
            metadata["hash"],
            parse_mapping(metadata["provenance"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: metadata does not fit: {error}") from error


def _kind(text: str) -> str:
    if text not in KINDS:
        raise ValueError(f"kind {text!r}: expected one of {tuple(KINDS)}")
    return text


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"new_stem {text!r}: expected true or false")
    return text == "true"


def load_base(path: str | Path) -> Foundation:
    """A foundation file, or the encoder of a segmentation checkpoint. FileNotFoundError, CheckpointError."""
    if read_format(path) != CHECKPOINT_FORMAT:
        return load_foundation(path)
    checkpoint = load_checkpoint(path)
    prefix = "encoder."
    weights = {k.removeprefix(prefix): t for k, t in checkpoint.weights.items() if k.startswith(prefix)}
    return Foundation(checkpoint.config, checkpoint.preprocessing, weights, checkpoint.hash, checkpoint.provenance)
