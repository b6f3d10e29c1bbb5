"""bf16 gives the gradients that fp32 gives, where torch alone would not."""

import copy

import pytest
import torch
from torch import nn

from threedme_ros.training.precision import keep_thin_convolutions_in_fp32


def weight_gradient(layer: nn.Module, x: torch.Tensor, upstream: torch.Tensor, *, bf16: bool) -> torch.Tensor:
    layer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        y = layer(x)
    y.backward(upstream.to(y.dtype))
    return layer.weight.grad.clone()


@pytest.mark.parametrize("shape", [(2, 6, 8), (2, 2, 2), (3, 4, 2)])
def test_the_gradient_of_a_thin_convolution_is_that_of_fp32(shape):
    torch.manual_seed(0)
    layer = nn.Conv3d(64, 64, 3, padding=1, bias=False)
    x, upstream = torch.randn(2, 1, 64, *shape)
    expected = weight_gradient(layer, x, upstream, bf16=False)
    keep_thin_convolutions_in_fp32(layer)
    found = weight_gradient(copy.deepcopy(layer), x, upstream, bf16=True)
    assert torch.cosine_similarity(found.flatten(), expected.flatten(), dim=0) > 0.999


def test_other_convolutions_still_run_in_bf16():
    layer = nn.Sequential(nn.Conv3d(8, 8, 3, padding=1))
    keep_thin_convolutions_in_fp32(layer)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(1, 8, 4, 4, 4)).dtype == layer(torch.randn(1, 8, 2, 4, 4)).dtype == torch.bfloat16
    assert layer(torch.randn(1, 8, 2, 4, 4)).dtype == torch.float32
