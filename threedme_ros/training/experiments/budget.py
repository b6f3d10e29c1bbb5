"""How much every arm of an experiment may do: the same seeds, steps and windows, whatever the arm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from threedme_ros.model.config import Preprocessing
from threedme_ros.training.crops import CropConfig
from threedme_ros.training.errors import TrainingError
from threedme_ros.training.masking import MaskingSchedule
from threedme_ros.training.pretrain_task import PretrainTask
from threedme_ros.training.tasks import Task
from threedme_ros.training.window_config import WindowConfig

FEWEST_SEEDS = 3


@dataclass(frozen=True)
class Budget:
    """``pretrain_steps`` and ``train_steps``: optimiser steps of one window each. Windows are (D, H, W) in voxels.

    model, model_changes: a size and fields of `ModelConfig` that differ from it in every arm. Raises TrainingError.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    pretrain_steps: int = 120
    train_steps: int = 150
    model: str = "small"
    model_changes: Mapping = field(default_factory=dict)
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    pretrain_windows: CropConfig = field(
        default_factory=lambda: CropConfig(shapes=((48, 48, 48), (16, 48, 48)), weights=(0.75, 0.25))
    )
    windows: WindowConfig = field(
        default_factory=lambda: WindowConfig(
            shapes=((48, 48, 48), (16, 48, 48)), weights=(0.75, 0.25), synthetic=0.0, field_of_view=0.0
        )
    )
    precision: str = "bf16"

    def __post_init__(self) -> None:
        object.__setattr__(self, "seeds", tuple(self.seeds))
        if len(set(self.seeds)) < max(FEWEST_SEEDS, len(self.seeds)):
            raise TrainingError(f"seeds {self.seeds}: expected at least {FEWEST_SEEDS}, all different")
        for name in ("pretrain_steps", "train_steps"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise TrainingError(f"{name} {getattr(self, name)!r}: expected a positive integer")

    def pretraining(self, masking: str, seed: int) -> PretrainTask:
        """One self-supervised run with the masking schedule of that kind."""
        return PretrainTask(
            name=f"experiment_{masking}",
            seed=seed,
            steps=self.pretrain_steps,
            model=self.model,
            model_changes=dict(self.model_changes),
            preprocessing=self.preprocessing,
            masking=replace(MaskingSchedule(), kind=masking),
            crops=self.pretrain_windows,
            precision=self.precision,
            workers=0,
        )

    def training(self, case: str, seed: int) -> Task:
        """One supervised run. The norms' statistics start anew in most arms, so they are fixed late."""
        return Task(
            name="experiment",
            anatomy="config/anatomy.yaml",
            cases={case: 1.0},
            seed=seed,
            model=self.model,
            learning_rate=3e-3,
            warm_up=0.05,
            freeze_norms=0.75,
            precision=self.precision,
            workers=0,
            windows=self.windows,
        )
