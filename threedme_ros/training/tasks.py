"""What a training run is: a frozen task read from YAML once, at the edge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import yaml

from threedme_ros.model.config import SIZES

from .augment import WarpConfig
from .data import TrainingError, WindowConfig

PRECISIONS = ("bf16", "fp32")


@dataclass(frozen=True)
class Task:
    """One supervised run. ``minutes`` is the wall-clock budget, ``warm_up`` a share of it,
    ``freeze_norms`` the share after which the norms' statistics stay (see `VoxelNorm`), ``ema_decay`` a step.

    cases: sample case -> how often it is drawn. Raises TrainingError with the field, its value and what was expected.
    """

    name: str
    anatomy: str
    cases: Mapping[str, float]
    seed: int = 0
    minutes: float = 60.0
    model: str = "small"
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    warm_up: float = 0.02
    freeze_norms: float = 0.3
    clip_norm: float = 1.0
    ema_decay: float = 0.998
    precision: str = "bf16"
    workers: int = 1
    validate_minutes: float = 5.0
    windows: WindowConfig = field(default_factory=WindowConfig)

    def __post_init__(self) -> None:
        for name in ("minutes", "learning_rate", "clip_norm", "validate_minutes"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
                raise TrainingError(f"{name} {value!r}: expected a positive number")
        for name in ("warm_up", "freeze_norms", "ema_decay"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not 0 <= value < 1:
                raise TrainingError(f"{name} {value!r}: expected a number from 0 to below 1")
        for name in ("seed", "workers"):
            value = getattr(self, name)
            if type(value) is not int or not 0 <= value < 2**30:
                raise TrainingError(f"{name} {value!r}: expected an integer from 0 to below 2**30")
        if self.model not in SIZES:
            raise TrainingError(f"model {self.model!r}: expected one of {sorted(SIZES)}")
        if self.precision not in PRECISIONS:
            raise TrainingError(f"precision {self.precision!r}: expected one of {PRECISIONS}")
        if not isinstance(self.cases, Mapping) or not self.cases or not all(w > 0 for w in self.cases.values()):
            raise TrainingError(f"cases {self.cases!r}: expected a positive weight for at least one sample case")

    def as_dict(self) -> dict:
        """Plain values, for a checkpoint's provenance."""
        return asdict(self)


def load_task(path: str | Path, **overrides) -> Task:
    """Read a task YAML; ``overrides`` that are not None replace its values. TrainingError names file and key."""
    try:
        document = yaml.safe_load(Path(path).read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise TrainingError(f"{path}: {error}") from error
    if not isinstance(document, dict):
        raise TrainingError(f"{path}: expected a mapping, found {type(document).__name__}")
    document |= {key: value for key, value in overrides.items() if value is not None}
    try:
        windows = dict(document.pop("windows", {}))
        warp = build_known(WarpConfig, dict(windows.pop("warp", {})))
        return build_known(Task, document | {"windows": build_known(WindowConfig, windows | {"warp": warp})})
    except (TypeError, ValueError) as error:
        raise TrainingError(f"{path}: {error}") from error


def build_known(kind: type, values: Mapping):
    """A dataclass ``kind`` from ``values``; TrainingError names the keys it does not know."""
    unknown = values.keys() - {f.name for f in fields(kind)}
    if unknown:
        raise TrainingError(f"unknown keys {sorted(unknown)}: expected some of {[f.name for f in fields(kind)]}")
    return kind(**values)
