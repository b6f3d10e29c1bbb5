"""What a training run is: a frozen task read from YAML once, at the edge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from threedme_ros.documents import DocumentError, read_yaml
from threedme_ros.model.config import is_number

from .augment import WarpConfig
from .clock import CLOCKS
from .errors import TrainingError, check_positive
from .networks import network_names
from .peer_networks import PEERS
from .synthesis import SynthesisConfig
from .window_config import WindowConfig

PRECISIONS = ("bf16", "fp32")


@dataclass(frozen=True)
class Phantoms:
    """Procedural cases beside the patients: how many are made, and the share of the windows that comes from them.

    A share of 1 is a run on phantoms alone.
    """

    count: int = 0
    share: float = 0.0

    def __post_init__(self) -> None:
        if type(self.count) is not int or not 0 <= self.count < 2**16:
            raise TrainingError(f"phantoms count {self.count!r}: expected an integer from 0 to below 2**16")
        share = self.share
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share <= 1:
            raise TrainingError(f"phantoms share {share!r}: expected a number from 0 to 1")
        if (self.count > 0) != (share > 0):
            raise TrainingError(f"phantoms count {self.count}, share {share}: expected both above 0, or neither")


@dataclass(frozen=True)
class Task:
    """One supervised run. ``minutes`` is the budget on ``clock`` (see `CLOCKS`), ``warm_up`` a share of it,
    ``freeze_norms`` the share after which the norms' statistics stay (see `VoxelNorm`), ``ema_decay`` a step,
    ``deep_supervision`` the weight of the coarse levels' own loss (3DME only; see `CoarseHeads`), 0 for none,
    ``class_balance`` how much small structures weigh (see `dice_cross_entropy`).

    model: one of `network_names`. cases: sample case -> how often it is drawn, against the other cases. Raises
    TrainingError with the field, its value and what was expected.
    """

    name: str
    anatomy: str
    cases: Mapping[str, float]
    seed: int = 0
    minutes: float = 60.0
    clock: str = "wall"
    model: str = "small"
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    warm_up: float = 0.02
    freeze_norms: float = 0.3
    clip_norm: float = 1.0
    ema_decay: float = 0.998
    class_balance: float = 0.0
    deep_supervision: float = 0.0
    precision: str = "bf16"
    workers: int = 1
    validate_minutes: float = 5.0
    phantoms: Phantoms = field(default_factory=Phantoms)
    windows: WindowConfig = field(default_factory=WindowConfig)

    def __post_init__(self) -> None:
        check_name(self.name)
        for name in ("minutes", "learning_rate", "clip_norm", "validate_minutes"):
            check_positive(name, getattr(self, name))
        for name in ("weight_decay", "warm_up", "freeze_norms", "ema_decay", "class_balance"):
            value = getattr(self, name)
            if not is_number(value) or not 0 <= value < 1:
                raise TrainingError(f"{name} {value!r}: expected a number from 0 to below 1")
        deep = self.deep_supervision
        if isinstance(deep, bool) or not isinstance(deep, (int, float)) or not 0 <= deep <= 10:
            raise TrainingError(f"deep_supervision {deep!r}: expected a number from 0 to 10")
        for name in ("seed", "workers"):
            value = getattr(self, name)
            if type(value) is not int or not 0 <= value < 2**30:
                raise TrainingError(f"{name} {value!r}: expected an integer from 0 to below 2**30")
        if self.model not in network_names():
            raise TrainingError(f"model {self.model!r}: expected one of {network_names()}")
        if self.clock not in CLOCKS:
            raise TrainingError(f"clock {self.clock!r}: expected one of {sorted(CLOCKS)}")
        if self.precision not in PRECISIONS:
            raise TrainingError(f"precision {self.precision!r}: expected one of {PRECISIONS}")
        if not isinstance(self.anatomy, str) or not self.anatomy.isprintable():
            raise TrainingError(f"anatomy {self.anatomy!r}: expected the file of a label table")
        if not isinstance(self.cases, Mapping) or not all(isinstance(case, str) for case in self.cases):
            raise TrainingError(f"cases {self.cases!r}: expected a positive weight for each sample case")
        for case, weight in self.cases.items():
            check_positive(f"case {case}", weight)
        if bool(self.cases) != (self.phantoms.share < 1):
            raise TrainingError(
                f"cases {self.cases!r} and a phantoms share of {self.phantoms.share}: expected cases, or a share of 1"
            )

    def as_dict(self) -> dict:
        """Plain values, for a checkpoint's provenance."""
        return asdict(self)


def check_name(name: object) -> None:
    """TrainingError unless ``name`` can stand in a log, a report and a file name."""
    if not isinstance(name, str) or not 1 <= len(name) <= 100 or not name.isprintable() or "/" in name:
        raise TrainingError(f"name {name!r}: expected 1 to 100 printable characters without '/'")


def load_task(path: str | Path, **overrides) -> Task:
    """Read a task YAML; ``overrides`` that are not None replace its values. TrainingError names file and key.

    A peer that an override puts in the place of the file's network brings its own learning rate and weight decay,
    unless those are overridden, too.
    """
    try:
        document = read_yaml(path)
    except DocumentError as error:
        raise TrainingError(f"{path}: {error}") from error
    if not isinstance(document, dict):
        raise TrainingError(f"{path}: expected a mapping, found {type(document).__name__}")
    given = {key: value for key, value in overrides.items() if value is not None}
    if given.get("model") in PEERS and given["model"] != document.get("model"):
        peer = PEERS[given["model"]]
        given = {"learning_rate": peer.learning_rate, "weight_decay": peer.weight_decay} | given
    document |= given
    try:
        windows = dict(document.pop("windows", {}))
        windows["warp"] = build_known(WarpConfig, dict(windows.pop("warp", {})))
        windows["synthesis"] = build_known(SynthesisConfig, dict(windows.pop("synthesis", {})))
        parts = {
            "windows": build_known(WindowConfig, windows),
            "phantoms": build_known(Phantoms, dict(document.pop("phantoms", {}))),
        }
        return build_known(Task, document | parts)
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise TrainingError(f"{path}: {error}") from error


def build_known(kind: type, values: Mapping):
    """A dataclass ``kind`` from ``values``; TrainingError names the keys it does not know."""
    unknown = values.keys() - {f.name for f in fields(kind)}
    if unknown:
        raise TrainingError(f"unknown keys {sorted(unknown)}: expected some of {[f.name for f in fields(kind)]}")
    return kind(**values)
