"""What a pretraining run is: a frozen task read from YAML once, at the edge."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from threedme_ros.documents import DocumentError, read_yaml
from threedme_ros.model.config import ModelConfig, Preprocessing

from .augment import WarpConfig
from .crops import CropConfig
from .errors import TrainingError, check_positive
from .masking import SCHEDULES, MaskingSchedule
from .reconstruction import LOSSES
from .tasks import PRECISIONS, build_known, check_name


@dataclass(frozen=True)
class PretrainTask:
    """One self-supervised run of ``steps`` optimiser steps, which makes it repeatable.

    model, model_changes: a size and fields of `ModelConfig` that differ from it. batch_size: windows a process and
    micro-step; accumulate: micro-steps a step; so a step sees batch_size * accumulate * processes windows. warm_up: a
    share of the steps. normalise_tokens: see `reconstruction_loss`. workers: data processes. Raises TrainingError.
    """

    name: str = "pretrain"
    seed: int = 0
    steps: int = 20_000
    model: str = "small"
    model_changes: Mapping = field(default_factory=dict)
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    modality: str = "auto"
    masking: MaskingSchedule = field(default_factory=MaskingSchedule)
    crops: CropConfig = field(default_factory=CropConfig)
    batch_size: int = 1
    accumulate: int = 1
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warm_up: float = 0.05
    clip_norm: float = 1.0
    ema_decay: float = 0.998
    precision: str = "bf16"
    loss: str = "l1"
    normalise_tokens: bool = False
    workers: int = 1
    save_every: int = 500

    def __post_init__(self) -> None:
        check_name(self.name)
        for name in ("steps", "batch_size", "accumulate", "save_every"):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value < 2**30:
                raise TrainingError(f"{name} {value!r}: expected a positive integer")
        for name in ("seed", "workers"):
            value = getattr(self, name)
            if type(value) is not int or not 0 <= value < 2**30:
                raise TrainingError(f"{name} {value!r}: expected an integer from 0 to below 2**30")
        for name in ("learning_rate", "clip_norm"):
            check_positive(name, getattr(self, name))
        for name in ("warm_up", "ema_decay", "weight_decay"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
                raise TrainingError(f"{name} {value!r}: expected a number from 0 to below 1")
        for name, known in (("precision", PRECISIONS), ("loss", LOSSES), ("modality", ("auto", "ct", "other"))):
            if getattr(self, name) not in known:
                raise TrainingError(f"{name} {getattr(self, name)!r}: expected one of {known}")
        if type(self.normalise_tokens) is not bool:
            raise TrainingError(f"normalise_tokens {self.normalise_tokens!r}: expected true or false")
        config = self.model_config()
        for shape in self.crops.shapes:
            if all(n == config.token_size for n in shape):
                raise TrainingError(f"window shape {shape}: expected at least two tokens of {config.token_size} voxels")

    def model_config(self) -> ModelConfig:
        """Of the encoder; num_classes means nothing to it."""
        try:
            return ModelConfig.of_size(self.model, 2, **self.model_changes)
        except TypeError as error:
            raise TrainingError(f"model_changes {dict(self.model_changes)}: {error}") from error

    def as_dict(self) -> dict:
        """Plain values as JSON has them, for a checkpoint's provenance and to compare runs."""
        return json.loads(json.dumps(asdict(self)))


def load_pretrain_task(path: str | Path, *, schedule: str | None = None, **overrides) -> PretrainTask:
    """Read a YAML; ``overrides`` that are not None replace its values, ``schedule`` its masking kind.

    TrainingError names the file, and the key and what was expected of it.
    """
    try:
        document = read_yaml(path) or {}
    except DocumentError as error:
        raise TrainingError(f"{path}: {error}") from error
    if not isinstance(document, dict):
        raise TrainingError(f"{path}: expected a mapping, found {type(document).__name__}")
    try:
        crops = _mapping(document, "crops")
        if "warp" in crops:
            crops["warp"] = build_known(WarpConfig, crops["warp"])
        parts = {
            "crops": build_known(CropConfig, crops),
            "masking": build_known(MaskingSchedule, _mapping(document, "masking")),
            "preprocessing": build_known(Preprocessing, _mapping(document, "preprocessing")),
        }
        task = build_known(PretrainTask, document | parts)
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise TrainingError(f"{path}: {error}") from error
    changes = {key: value for key, value in overrides.items() if value is not None}
    if schedule is not None:
        if schedule not in SCHEDULES:
            raise TrainingError(f"schedule {schedule!r}: expected one of {SCHEDULES}")
        changes["masking"] = replace(task.masking, kind=schedule)
    return replace(task, **changes)


def _mapping(document: dict, key: str) -> dict:
    value = document.get(key) or {}
    if not isinstance(value, dict):
        raise TrainingError(f"{key} {value!r}: expected a mapping")
    return dict(value)
