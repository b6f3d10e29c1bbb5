"""bf16 autocast on the CPU without its two silent faults (torch 2.13): what may run in bf16, and norms that may not."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor, nn

from threedme_ros.model.config import ModelConfig


def autocast_for(image: Tensor, precision: str) -> contextlib.AbstractContextManager:
    """The autocast context for a batch (B, C, D, H, W).

    oneDNN's bf16 weight gradient of a padded 3x3x3 convolution reads uninitialised memory where an axis has exactly two
    voxels, which a window of 16 has at stride 8: such windows run in fp32.
    """
    wide = min(image.shape[2:]) > ModelConfig.STRIDE
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16" and wide)


def keep_norms_in_fp32(model: nn.Module) -> None:
    """Run every layer norm of ``model`` in fp32 under autocast, by hooks that change neither weights nor export.

    torch sums the gradients of a norm's weight and bias over all voxels in bf16 on the CPU, and loses most of them.
    """
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.register_forward_pre_hook(_to_fp32)
            module.register_forward_hook(_to_autocast_type)


def keep_thin_convolutions_in_fp32(model: nn.Module) -> None:
    """Run every convolution of ``model`` whose input has exactly two slices in fp32 under autocast, for the fault that
    `autocast_for` tells of: with this, windows of any shape may run in bf16. Weights and export stay as they are.
    """
    for module in model.modules():
        if type(module) is nn.Conv3d:
            module.__class__ = _ThinSafeConv3d


class _ThinSafeConv3d(nn.Conv3d):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if input.shape[2] != 2 or not torch.is_autocast_enabled("cpu"):
            return super()._conv_forward(input, weight, bias)
        with torch.autocast("cpu", enabled=False):
            output = super()._conv_forward(input.float(), weight, bias)
        return output.to(torch.get_autocast_dtype("cpu"))


def _to_fp32(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0].float(),)


def _to_autocast_type(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    return output.to(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else output
