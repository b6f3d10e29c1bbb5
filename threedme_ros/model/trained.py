"""A network trained for a task, ready to use: from its checkpoint, or from a foundation and an adapter over it."""

from __future__ import annotations

import json
from pathlib import Path

from threedme_ros.anatomy import Anatomy, AnatomyError
from threedme_ros.model.adapters import load_adapter, load_base
from threedme_ros.model.checkpoint import Checkpoint, load_checkpoint
from threedme_ros.model.classifier import FORMAT as CLASSIFIER_FORMAT
from threedme_ros.model.classifier import ClassifierCheckpoint, load_classifier
from threedme_ros.model.config import Preprocessing
from threedme_ros.model.weights_file import CheckpointError, read_format

Trained = Checkpoint | ClassifierCheckpoint


def load_trained(
    checkpoint: str | Path | None = None,
    *,
    foundation: str | Path | None = None,
    adapter: str | Path | None = None,
) -> Trained:
    """A ``checkpoint`` of either kind, or an ``adapter`` with its ``foundation``. CheckpointError, ValueError."""
    if (checkpoint is None) == (adapter is None) or (adapter is None) != (foundation is None):
        raise ValueError("expected either a checkpoint, or a foundation and an adapter")
    if checkpoint is not None:
        if read_format(checkpoint) == CLASSIFIER_FORMAT:
            return load_classifier(checkpoint)
        return load_checkpoint(checkpoint)
    loaded = load_adapter(adapter)
    weights = loaded.over(load_base(foundation)).state_dict()
    provenance = dict(loaded.provenance)
    try:
        if loaded.kind == "classification":
            classes, shape = tuple(loaded.task["classes"]), tuple(loaded.task["input_shape"])
            return ClassifierCheckpoint(loaded.config, classes, shape, weights, loaded.hash, provenance)
        anatomy = Anatomy.from_json(json.dumps(loaded.task["anatomy"]))
        preprocessing = Preprocessing(**loaded.task["preprocessing"])
    except (KeyError, TypeError, ValueError, AnatomyError) as error:
        raise CheckpointError(f"{adapter}: its task does not fit: {error!r}") from error
    return Checkpoint(loaded.config, anatomy, preprocessing, weights, loaded.hash, provenance)


def modalities_of(checkpoint: Checkpoint, default: str = "auto") -> tuple[str, ...]:
    """How each input channel's intensities are read, as its training recorded it; else ``default``."""
    recorded = checkpoint.provenance.get("task", {}).get("modalities")
    return tuple(recorded) if recorded else (default,) * checkpoint.config.in_channels


def channels_of(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The names of the input channels, as its training recorded them; else numbers."""
    recorded = checkpoint.provenance.get("task", {}).get("channels")
    return tuple(recorded) if recorded else tuple(str(i) for i in range(checkpoint.config.in_channels))
