"""A supervised run in memory: the learning rate's course, the weights' moving average, one step, the saved state."""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from threedme_ros.model.checkpoint import Checkpoint
from threedme_ros.model.layers import freeze_norms
from threedme_ros.model.threedme import ThreeDME

from .deep_supervision import CoarseHeads
from .errors import TrainingError
from .losses import dice_cross_entropy
from .networks import Network, build_network, logits_and_target
from .optimiser import MatrixOptimiser
from .peer_checkpoint import PeerCheckpoint
from .precision import keep_norms_in_fp32, keep_thin_convolutions_in_fp32
from .run_folder import read_state_file
from .tasks import Task

MAY_CHANGE = ("minutes", "workers", "validate_minutes")
"""Fields of a task that another session of the same run may set anew."""


def learning_rate(progress: float, peak: float, warm_up: float) -> float:
    """Linear up to ``peak`` over the first ``warm_up`` of the budget, then a half cosine down to 0 at progress 1."""
    progress = min(max(progress, 0.0), 1.0)
    if progress < warm_up:
        return peak * progress / warm_up
    return peak * 0.5 * (1 + math.cos(math.pi * (progress - warm_up) / (1 - warm_up)))


class MovingAverage:
    """Exponential moving average of a model's weights; the decay starts low, so that the first steps are forgotten."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self.decay, self.steps = decay, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.steps += 1
        decay = min(self.decay, self.steps / (self.steps + 10))
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1 - decay)
        for mine, its in zip(self.model.buffers(), model.buffers(), strict=True):  # running statistics of the norms
            mine.copy_(its)


@dataclass
class Trainer:
    """A run in memory: model, optimiser, moving average, and how much of the budget is spent.

    elapsed_s: seconds on the task's clock, which the budget is in. wall_s: the same stretch by the wall clock.
    """

    task: Task
    model: Network
    average: MovingAverage
    optimiser: MatrixOptimiser
    coarse: CoarseHeads | None = None
    step: int = 0
    elapsed_s: float = 0.0
    wall_s: float = 0.0

    @classmethod
    def create(cls, task: Task, num_classes: int, changes: Mapping | None = None) -> Trainer:
        """A new run. changes: fields of `ModelConfig` that differ from the task's size."""
        torch.manual_seed(task.seed)
        model = build_network(task.model, num_classes, changes)
        keep_norms_in_fp32(model)
        keep_thin_convolutions_in_fp32(model)
        deep = task.deep_supervision and isinstance(model, ThreeDME)
        coarse = CoarseHeads(model.config) if deep else None
        trained = [*model.parameters(), *(coarse.parameters() if coarse else ())]
        optimiser = MatrixOptimiser(trained, num_classes, task.learning_rate, task.weight_decay)
        return cls(task, model, MovingAverage(model, task.ema_decay), optimiser, coarse)

    def start_from(self, checkpoint: Checkpoint | PeerCheckpoint) -> None:
        """Begin with the weights of ``checkpoint``; TrainingError if it holds another network."""
        if checkpoint.config != self.model.config:
            raise TrainingError(f"initial network {checkpoint.config}: expected {self.model.config}")
        self.model.load_state_dict(checkpoint.build().state_dict())
        self.average = MovingAverage(self.model, self.task.ema_decay)

    def train_step(self, image: Tensor, labels: Tensor, progress: float) -> float:
        """One window batch (B, 1, D, H, W) and (B, D, H, W) uint8; returns the loss.

        Raises TrainingError with the step if the loss or a gradient is not finite; the weights are then unchanged.
        """
        self.model.train()
        if progress >= self.task.freeze_norms:
            freeze_norms(self.model)
        self.optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.task.precision == "bf16"):
            logits, target, features = logits_and_target(self.model, image, labels)
            coarse = self.coarse.loss(features, labels) if self.coarse else 0.0
        loss = dice_cross_entropy(logits, target, balance=self.task.class_balance) + self.task.deep_supervision * coarse
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.task.clip_norm)
        if not (math.isfinite(loss.item()) and math.isfinite(norm.item())):
            raise TrainingError(
                f"step {self.step}: loss {loss.item()}, gradient norm {norm.item()}: expected finite numbers"
            )
        self.optimiser.step(learning_rate(progress, self.task.learning_rate, self.task.warm_up))
        self.average.update(self.model)
        self.step += 1
        return loss.item()

    def save_state(self, path: Path) -> None:
        state = {
            "task": json.dumps(self.task.as_dict()),
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "wall_s": self.wall_s,
            "model": self.model.state_dict(),
            "average": self.average.model.state_dict(),
            "average_steps": self.average.steps,
            "optimiser": self.optimiser.state_dict(),
            "coarse": self.coarse.state_dict() if self.coarse else {},
        }
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        torch.save(state, temporary)
        temporary.replace(path)

    def load_state(self, path: Path) -> None:
        """Go on where ``path`` stopped; TrainingError if it cannot be read or belongs to another task."""
        state = read_state_file(path)
        try:
            task = json.loads(state["task"])
            mine = json.loads(json.dumps(self.task.as_dict()))
            changed = [key for key in mine if mine[key] != task.get(key) and key not in MAY_CHANGE]
            if changed:
                raise TrainingError(f"{path}: from a task with another {', '.join(changed)}; start in a new folder")
            self._take(state)
        except TrainingError:
            raise
        except Exception as error:  # in a damaged state anything can lie anywhere
            raise TrainingError(f"{path}: not a training state ({type(error).__name__}: {error})") from error

    def _take(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.average.model.load_state_dict(state["average"])
        self.average.steps = int(state["average_steps"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.coarse:
            self.coarse.load_state_dict(state["coarse"])
        self.step, self.elapsed_s, self.wall_s = int(state["step"]), float(state["elapsed_s"]), float(state["wall_s"])
