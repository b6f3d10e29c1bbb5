"""The tasks a foundation is adapted to: frozen descriptions, read from config/tasks/*.yaml once, at the edge."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from threedme_ros.anatomy import Anatomy, Role, Structure
from threedme_ros.documents import DocumentError, read_yaml
from threedme_ros.inference.preprocess import MODALITIES
from threedme_ros.model.config import ModelConfig, Preprocessing
from threedme_ros.share import share_path

from .augment import WarpConfig
from .errors import TrainingError, check_positive
from .tasks import PRECISIONS, build_known, check_name

FOLDER = "config/tasks"
KINDS = ("segmentation", "classification")
LAYOUTS = ("btcv", "brats", "msd", "nnunet", "medmnist3d")
LESIONS = ("tumour", "tumor", "lesion", "cancer", "cyst", "edema")


@dataclass(frozen=True)
class Anchor:
    """A published figure to compare with: what made it, on which data, and where it is printed."""

    method: str
    metric: str
    value: float
    data: str
    source: str


@dataclass(frozen=True)
class Recipe:
    """How a task is trained.

    batch_size: samples a process and micro-step. warm_up: a share of the steps. freeze_norms: the share after which
    the norms' statistics stay, as in `VoxelNorm`.
    """

    steps: int = 20_000
    batch_size: int = 2
    accumulate: int = 1
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    warm_up: float = 0.05
    freeze_norms: float = 0.3
    clip_norm: float = 1.0
    ema_decay: float = 0.998
    precision: str = "bf16"
    workers: int = 2
    save_every: int = 1000
    seed: int = 0
    acquisition: float = 0.5
    """Share of samples whose blur, contrast and noise are changed."""
    warp: WarpConfig = field(default_factory=lambda: WarpConfig(rotation_deg=15, share=0.7))

    def __post_init__(self) -> None:
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
        for name in ("warm_up", "freeze_norms", "ema_decay", "weight_decay", "acquisition"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise TrainingError(f"{name} {value!r}: expected a number from 0 to 1")
        if self.precision not in PRECISIONS:
            raise TrainingError(f"precision {self.precision!r}: expected one of {PRECISIONS}")


@dataclass(frozen=True)
class _Described:
    name: str
    title: str
    data: str
    """Where to get the data set, in words."""
    reference: str
    layout: str
    recipe: Recipe = field(default_factory=Recipe)
    anchors: tuple[Anchor, ...] = ()

    def __post_init__(self) -> None:
        check_name(self.name)
        for name in ("title", "data", "reference"):
            if not isinstance(getattr(self, name), str):
                raise TrainingError(f"{name} {getattr(self, name)!r}: expected a text")
        if self.layout not in LAYOUTS:
            raise TrainingError(f"layout {self.layout!r}: expected one of {LAYOUTS}")

    def with_recipe(self, **changes):
        """The same task, trained otherwise; ``changes`` that are None are left out."""
        return replace(self, recipe=replace(self.recipe, **{k: v for k, v in changes.items() if v is not None}))


@dataclass(frozen=True)
class SegmentationTask(_Described):
    """channels: name -> modality as for `prepare`, in the network's order. anatomy: ids are the files' label values.

    regions: what is scored, name -> label values; empty: each structure by itself. window: (D, H, W) voxels.
    """

    kind = "segmentation"
    channels: Mapping[str, str] = field(default_factory=lambda: {"CT": "ct"})
    anatomy: Anatomy | None = None
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    window: tuple[int, int, int] = (96, 96, 96)
    nsd_tolerance_mm: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "window", tuple(int(n) for n in self.window))
        if len(self.window) != 3 or any(n < 32 or n % ModelConfig.STRIDE for n in self.window):
            raise TrainingError(f"window {self.window}: expected three multiples of {ModelConfig.STRIDE}, at least 32")
        if not isinstance(self.anatomy, Anatomy) or self.anatomy.num_classes > 255:
            raise TrainingError(f"structures {self.anatomy}: expected label values from 1 to 254 with names")
        if not self.channels or any(m not in MODALITIES for m in self.channels.values()):
            raise TrainingError(f"channels {dict(self.channels)}: expected names with one of {MODALITIES}")
        regions = {name: tuple(ids) for name, ids in self.regions.items()}
        object.__setattr__(self, "regions", regions)
        unknown = [i for ids in regions.values() for i in ids if i not in self.anatomy]
        if unknown:
            raise TrainingError(f"regions {regions}: label {unknown[0]} is no structure of the task")
        if not 0 < self.nsd_tolerance_mm <= 50:
            raise TrainingError(f"nsd_tolerance_mm {self.nsd_tolerance_mm}: expected 0 to 50 mm")

    @property
    def targets(self) -> dict[str, tuple[int, ...]]:
        """What is scored: name -> label values."""
        return dict(self.regions) or {s.name: (s.id,) for s in self.anatomy}

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.channels.values())

    @property
    def num_classes(self) -> int:
        return self.anatomy.num_classes

    @property
    def in_channels(self) -> int:
        return len(self.channels)


@dataclass(frozen=True)
class ClassificationTask(_Described):
    """flag: the npz file's stem. classes: names in label order. input_shape: (D, H, W) that images are brought to."""

    kind = "classification"
    in_channels = 1
    flag: str = ""
    classes: tuple[str, ...] = ()
    input_shape: tuple[int, int, int] = (64, 64, 64)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "classes", tuple(str(name) for name in self.classes))
        object.__setattr__(self, "input_shape", tuple(int(n) for n in self.input_shape))
        if not 2 <= len(self.classes) <= 256:
            raise TrainingError(f"classes {self.classes}: expected 2 to 256 names")
        if len(self.input_shape) != 3 or any(n < 32 or n % ModelConfig.STRIDE for n in self.input_shape):
            raise TrainingError(f"input_shape {self.input_shape}: expected multiples of {ModelConfig.STRIDE} from 32")

    @property
    def num_classes(self) -> int:
        return len(self.classes)


Task = SegmentationTask | ClassificationTask


def structures(names: Mapping[int, str]) -> Anatomy:
    """A label table of ``names``: colours, margins and roles of the shipped table where it knows the name.

    A lesion is a target, anything else unknown is context; their colours go round the hue circle.
    """
    known = Anatomy.from_yaml(share_path("config/anatomy.yaml"))
    rows = []
    for number, (value, name) in enumerate(names.items()):
        if name in known:
            rows.append(replace(known[name], id=value))
            continue
        colour = tuple(round(255 * c) for c in colorsys.hsv_to_rgb(0.08 + 0.381966 * number % 1, 0.55, 0.9))
        role = Role.TARGET if any(word in str(name).lower() for word in LESIONS) else Role.CONTEXT
        rows.append(Structure(value, name, colour, 0.0, role))
    return Anatomy(rows)


def load_task(path: str | Path) -> Task:
    """Read one task. TrainingError names the file, the key and what was expected."""
    try:
        document = read_yaml(path)
    except DocumentError as error:
        raise TrainingError(f"{path}: {error}") from error
    if not isinstance(document, dict) or document.get("kind") not in KINDS:
        raise TrainingError(f"{path}: expected a mapping with `kind`, one of {KINDS}")
    try:
        return task_from(document)
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise TrainingError(f"{path}: {error}") from error


def task_from(document: Mapping) -> Task:
    """A task from plain values. TrainingError, TypeError, KeyError, AttributeError."""
    values = {key: value for key, value in document.items() if key != "kind"}
    recipe = dict(values.pop("recipe", {}))
    if "warp" in recipe:
        recipe["warp"] = build_known(WarpConfig, recipe["warp"])
    values["recipe"] = build_known(Recipe, recipe)
    values["anchors"] = tuple(build_known(Anchor, row) for row in values.get("anchors", ()))
    if document["kind"] == "classification":
        return build_known(ClassificationTask, values)
    values["anatomy"] = structures(values.pop("structures"))
    if "preprocessing" in values:
        values["preprocessing"] = build_known(Preprocessing, values["preprocessing"])
    return build_known(SegmentationTask, values)


def all_tasks() -> list[Task]:
    """Every shipped task, segmentation first, by name."""
    folder = share_path(FOLDER)
    tasks = [load_task(path) for path in sorted(folder.glob("*.yaml")) if _is_task(path)]
    return sorted(tasks, key=lambda task: (KINDS.index(task.kind), task.name))


def _is_task(path: Path) -> bool:
    document = read_yaml(path)
    return isinstance(document, dict) and document.get("kind") in KINDS


def find_task(name: str) -> Task:
    """A shipped task by name, or the YAML file called ``name``. TrainingError lists the names."""
    if name.endswith((".yaml", ".yml")):
        return load_task(name)
    names: Sequence[str] = [task.name for task in all_tasks()]
    if name not in names:
        raise TrainingError(f"task {name!r}: expected one of {', '.join(names)}, nnunet, or a YAML file")
    return load_task(share_path(f"{FOLDER}/{name}.yaml"))
