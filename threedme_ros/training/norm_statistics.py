"""Which statistics a batch norm uses after pretraining, when most of what it saw was hidden."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

from threedme_ros.model.encoder import Encoder

from .crops import CropStream

Network = TypeVar("Network", bound=nn.Module)


def _batch_norms(module: nn.Module) -> list[nn.BatchNorm3d]:
    return [m for m in module.modules() if isinstance(m, nn.BatchNorm3d)]


def with_own_statistics(network: Network) -> Network:
    """A copy whose batch norms use each window's own statistics, as in pretraining; to reconstruct with."""
    network = copy.deepcopy(network).eval()
    for norm in _batch_norms(network):
        norm.train()
        norm.momentum = 0.0  # and leave the running ones
    return network


@torch.no_grad()
def with_unmasked_statistics(encoder: Encoder, windows: CropStream) -> Encoder:
    """A copy whose batch norms hold the mean statistics of ``windows``, nothing of them hidden; to fine-tune from.

    The running statistics of pretraining are those of windows of which up to 85% is one constant (Wu and Johnson 2021,
    section 3: statistics are to be of the data the network will see).
    """
    encoder = copy.deepcopy(encoder).eval()
    norms = _batch_norms(encoder)
    if not norms:
        return encoder
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
        norm.momentum = None  # the plain mean over all windows
    device = next(encoder.parameters()).device
    for number in range(len(windows)):
        encoder(windows[number].image[None].to(device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return encoder.eval()
