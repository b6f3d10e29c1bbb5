"""What pretraining and fine-tuning share: the end of an optimiser step on every rank, and what a run resumes from."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .errors import TrainingError
from .trainer import MovingAverage

if TYPE_CHECKING:
    from lightning.fabric import Fabric


class FabricTrainer:
    """A run in memory: network, moving average, optimiser, and the number of the next step.

    A subclass sets ``model``, and calls `_set_up` with what Fabric is to run.
    """

    model: nn.Module

    def __init__(self, fabric: Fabric) -> None:
        self.fabric, self.step = fabric, 0

    def _set_up(self, forward: nn.Module, optimiser: torch.optim.Optimizer, ema_decay: float) -> None:
        self.optimiser = optimiser
        self._forward, self._optimiser = self.fabric.setup(forward, optimiser)
        self.average = MovingAverage(self.model, ema_decay)

    def _finish_step(self, total: Tensor, rate: float, clip_norm: float) -> dict:
        """Clip, check, step, average. total: this rank's mean loss, a scalar. Returns loss, gradient norm, rate.

        Raises TrainingError, on every rank alike, if one is not finite; the weights are then those of the step before.
        """
        norm = self.fabric.clip_gradients(
            self._forward, self._optimiser, max_norm=clip_norm, error_if_nonfinite=False
        ).item()
        loss = self.fabric.all_reduce(total, reduce_op="mean").item()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise TrainingError(f"step {self.step}: loss {loss}, gradient norm {norm}: expected finite numbers")
        self._optimiser.step()
        self.average.update(self.model)
        self.step += 1
        return {"loss": loss, "gradient_norm": norm, "learning_rate": rate}

    def state(self) -> dict:
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average.model.state_dict(),
            "average_steps": self.average.steps,
            "optimiser": self.optimiser.state_dict(),
        }

    def load(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.average.model.load_state_dict(state["average"])
        self.average.steps = int(state["average_steps"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = int(state["step"])
