"""The optimiser of supervised runs: Muon for the hidden layers' weights, AdamW for everything else.

Muon (Jordan 2024, kellerjordan.github.io/posts/muon) makes each step of a weight matrix orthogonal, so that rare
directions move as far as common ones. Its steps are scaled to the size of AdamW's (Liu et al. 2025, arXiv 2502.16982),
so one learning rate serves both. After six CPU minutes on procedural phantoms, with the same recipe and seed, the mean
Dice on synthesised windows was 0.51 with Muon (945 steps; 0.50 at twice the rate) and 0.23 with AdamW (982 steps).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

BETAS = (0.9, 0.98)
THINNEST = 16
"""Rows and columns, at least, of a matrix that is worth making orthogonal."""


class MatrixOptimiser:
    """Of ``weights``: leaf tensors with gradients, in any order.

    num_classes: rows of a classifier, which AdamW trains. weight_decay: of everything with more than one axis.
    """

    def __init__(self, weights: Iterable[Tensor], num_classes: int, learning_rate: float, weight_decay: float) -> None:
        weights = list(weights)
        self._hidden = [w for w in weights if is_hidden(w, num_classes)]
        hidden = {id(w) for w in self._hidden}
        rest = [w for w in weights if id(w) not in hidden]
        groups = [
            {"params": [w for w in rest if w.ndim > 1], "weight_decay": weight_decay},
            {"params": [w for w in rest if w.ndim <= 1], "weight_decay": 0.0},
        ]
        # torch's Muon takes matrices only: these are views of the weights
        self._matrices = [nn.Parameter(_matrix(w.detach()), requires_grad=False) for w in self._hidden]
        self._parts: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, learning_rate, BETAS, foreach=True)]
        if self._matrices:
            self._parts.append(
                torch.optim.Muon(self._matrices, learning_rate, weight_decay, adjust_lr_fn="match_rms_adamw")
            )

    def zero_grad(self) -> None:
        self._parts[0].zero_grad(set_to_none=True)
        for weight in self._hidden:
            weight.grad = None

    def step(self, learning_rate: float) -> None:
        """One step at ``learning_rate`` along the gradients that the weights hold."""
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = learning_rate
        for weight, matrix in zip(self._hidden, self._matrices, strict=True):
            matrix.grad = None if weight.grad is None else _flat(weight.grad, like=weight)
        for part in self._parts:
            part.step()

    def state_dict(self) -> list[dict]:
        return [part.state_dict() for part in self._parts]

    def load_state_dict(self, states: list[dict]) -> None:
        """ValueError if ``states`` are of another network's optimiser, or of another optimiser."""
        if not isinstance(states, list) or len(states) != len(self._parts):
            raise ValueError(
                f"optimiser state {type(states).__name__}: expected a list of {len(self._parts)}, Muon's last"
            )
        for part, state in zip(self._parts, states, strict=True):
            part.load_state_dict(state)


def is_hidden(weight: Tensor, num_classes: int) -> bool:
    """Whether Muon trains ``weight``: a matrix (out, in * kernel) at least `THINNEST` thick, and no classifier."""
    return weight.ndim > 1 and min(len(weight), weight[0].numel()) >= THINNEST and len(weight) != num_classes


def _matrix(weight: Tensor) -> Tensor:
    """A view (out, in * kernel) of ``weight``; ValueError where its memory layout allows none."""
    view = _flat(weight, like=weight)
    if view.data_ptr() != weight.data_ptr():
        raise ValueError(
            f"weight {tuple(weight.shape)} of strides {weight.stride()}: expected it contiguous or channels last"
        )
    return view


def _flat(x: Tensor, like: Tensor) -> Tensor:
    """(out, in, ...) -> (out, in * kernel), or (out, kernel * in) where ``like`` lies channels last in memory."""
    return (x if like.is_contiguous() else x.movedim(1, -1)).flatten(1)
