"""One safetensors file holds weights, model config, label table, preprocessing and provenance; nothing is unpickled.

The hash covers all of it, so two files with one hash segment alike.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from threedme_ros.anatomy import Anatomy, AnatomyError
from threedme_ros.documents import parse_mapping
from threedme_ros.model.config import ModelConfig, Preprocessing
from threedme_ros.model.threedme import ThreeDME
from threedme_ros.model.weights_file import CheckpointError, built, read_weights, write_weights

__all__ = ["Checkpoint", "CheckpointError", "add_to_checkpoint", "load_checkpoint", "save_checkpoint"]

FORMAT = "threedme-1"
FITTED = ("calibration", "scope")
"""Metadata that belongs to exactly these weights, added after training; a file without them is whole, too."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A trained network and everything that is needed to use it rightly. ``hash`` is 16 hex digits.

    calibration: how its confidence was made to mean something; the temperature is in the weights already. scope: what
    tells input it was not made for, see `threedme_ros.inference.scope`. None where nobody fitted them to these weights.
    """

    config: ModelConfig
    anatomy: Anatomy
    preprocessing: Preprocessing
    weights: dict[str, Tensor]
    hash: str
    provenance: dict = field(default_factory=dict)
    calibration: dict | None = None
    scope: dict | None = None

    def build(self) -> ThreeDME:
        """The network in fp32, in eval mode. CheckpointError names every tensor that does not fit."""
        return built(lambda: ThreeDME(self.config), self.weights, f"a {self.config.size} model")


def save_checkpoint(
    path: str | Path,
    model: nn.Module,
    anatomy: Anatomy,
    preprocessing: Preprocessing,
    provenance: dict,
    dtype: torch.dtype = torch.float16,
) -> str:
    """Write ``model`` (a `ThreeDME`) atomically, weights as ``dtype``; returns the hash.

    Raises CheckpointError for a non-finite weight, after the conversion.
    """
    metadata = {
        "format": FORMAT,
        "config": json.dumps(asdict(model.config)),
        "anatomy": anatomy.to_json(),
        "preprocessing": json.dumps(asdict(preprocessing)),
        "provenance": json.dumps(provenance),
    }
    return write_weights(path, metadata, model.state_dict(), dtype)


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read and verify a checkpoint. FileNotFoundError, or CheckpointError that says what does not fit."""
    metadata, weights = read_weights(path, FORMAT)
    try:
        config = ModelConfig(**parse_mapping(metadata["config"]))
        anatomy = Anatomy.from_json(metadata["anatomy"])
        preprocessing = Preprocessing(**parse_mapping(metadata["preprocessing"]))
        provenance = parse_mapping(metadata["provenance"])
        fitted = {key: parse_mapping(metadata[key]) for key in FITTED if key in metadata}
    except (KeyError, TypeError, ValueError, AnatomyError) as error:
        raise CheckpointError(f"{path}: metadata does not fit: {error}") from error
    if config.num_classes < anatomy.num_classes:
        raise CheckpointError(
            f"{path}: {config.num_classes} classes for a label table that needs {anatomy.num_classes}"
        )
    return Checkpoint(config, anatomy, preprocessing, weights, metadata["hash"], provenance, **fitted)


def add_to_checkpoint(path: str | Path, fitted: Mapping[str, dict], weights: Mapping[str, Tensor] | None = None) -> str:
    """Write ``path`` anew with what was ``fitted`` to its network, keys of `FITTED`; returns the new hash.

    What an earlier call added and this one does not is left out. weights: replace the file's of the same names.
    """
    unknown = sorted(set(fitted) - set(FITTED))
    if unknown:
        raise CheckpointError(f"{', '.join(unknown)}: expected only {', '.join(FITTED)}")
    metadata, stored = read_weights(path, FORMAT)
    metadata = {key: text for key, text in metadata.items() if key not in (*FITTED, "hash")}
    metadata |= {key: json.dumps(value) for key, value in fitted.items()}
    return write_weights(path, metadata, stored | dict(weights or {}), None)
