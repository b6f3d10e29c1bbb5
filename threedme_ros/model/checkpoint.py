"""One safetensors file holds weights, model config, label table, preprocessing and provenance; nothing is unpickled.

The hash covers all of it, so two files with one hash segment alike.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from threedme_ros.anatomy import Anatomy, AnatomyError
from threedme_ros.model.config import ModelConfig, Preprocessing
from threedme_ros.model.threedme import ThreeDME

FORMAT = "threedme-1"


class CheckpointError(ValueError):
    """The file is no checkpoint of this package; the message names the key and what was expected."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A trained network and everything that is needed to use it rightly. ``hash`` is 16 hex digits."""

    config: ModelConfig
    anatomy: Anatomy
    preprocessing: Preprocessing
    weights: dict[str, Tensor]
    hash: str
    provenance: dict = field(default_factory=dict)

    def build(self) -> ThreeDME:
        """The network in fp32, in eval mode. CheckpointError names every tensor that does not fit."""
        model = ThreeDME(self.config)
        expected = {name: tuple(t.shape) for name, t in model.state_dict().items()}
        found = {name: tuple(t.shape) for name, t in self.weights.items()}
        problems = [f"missing {name}" for name in expected.keys() - found.keys()]
        problems += [f"unexpected {name}" for name in found.keys() - expected.keys()]
        problems += [
            f"{name} has shape {found[name]}, expected {shape}"
            for name, shape in expected.items()
            if name in found and found[name] != shape
        ]
        if problems:
            raise CheckpointError(f"weights do not fit a {self.config.size} model: {'; '.join(sorted(problems))}")
        model.load_state_dict({name: t.float() for name, t in self.weights.items()})
        return model.eval()


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
    weights = {name: t.detach().to("cpu", dtype).contiguous() for name, t in model.state_dict().items()}
    bad = [name for name, t in weights.items() if not torch.isfinite(t).all()]
    if bad:
        raise CheckpointError(f"non-finite weights in {', '.join(bad)}: not saved")
    metadata = {
        "format": FORMAT,
        "config": json.dumps(asdict(model.config)),
        "anatomy": anatomy.to_json(),
        "preprocessing": json.dumps(asdict(preprocessing)),
        "provenance": json.dumps(provenance),
    }
    metadata["hash"] = _hash(metadata, weights)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(weights, temporary, metadata)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return metadata["hash"]


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read and verify a checkpoint. FileNotFoundError, or CheckpointError that says what does not fit."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no iterator)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path}: format {metadata.get('format')!r}, expected {FORMAT!r}")
    if metadata.get("hash") != _hash(metadata, weights):
        raise CheckpointError(f"{path}: hash {metadata.get('hash')!r} does not match the content; the file is damaged")
    try:
        config = ModelConfig(**json.loads(metadata["config"]))
        anatomy = Anatomy.from_json(metadata["anatomy"])
        preprocessing = Preprocessing(**json.loads(metadata["preprocessing"]))
        provenance = json.loads(metadata["provenance"])
    except (KeyError, TypeError, ValueError, AnatomyError) as error:
        raise CheckpointError(f"{path}: metadata does not fit: {error}") from error
    if config.num_classes < anatomy.num_classes:
        raise CheckpointError(
            f"{path}: {config.num_classes} classes for a label table that needs {anatomy.num_classes}"
        )
    return Checkpoint(config, anatomy, preprocessing, weights, metadata["hash"], provenance)


def _hash(metadata: dict[str, str], weights: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(metadata.keys() - {"hash"}):
        digest.update(f"{key}\0{metadata[key]}\0".encode())
    for name in sorted(weights):
        tensor = weights[name]
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
