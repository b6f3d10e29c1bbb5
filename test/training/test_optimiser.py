import copy

import pytest
import torch
from torch import nn

from threedme_ros.training.optimiser import MatrixOptimiser, is_hidden

CLASSES = 17


def weights():
    torch.manual_seed(0)
    shapes = {"conv": (32, 16, 3, 3, 3), "linear": (24, 48), "head": (CLASSES, 32), "thin": (8, 64)}
    return {name: nn.Parameter(torch.randn(shape)) for name, shape in (shapes | {"bias": (32,)}).items()}


def fill_gradients(parameters, seed=1):
    torch.manual_seed(seed)
    for p in parameters.values():
        p.grad = torch.randn_like(p)


def test_what_is_hidden():
    found = {name: is_hidden(p, CLASSES) for name, p in weights().items()}
    assert found == {"conv": True, "linear": True, "head": False, "thin": False, "bias": False}


def test_a_convolution_moves_by_an_orthogonal_matrix_of_the_size_of_adamw():
    parameters = weights()
    before = {name: p.detach().clone() for name, p in parameters.items()}
    fill_gradients(parameters)
    MatrixOptimiser(parameters.values(), CLASSES, 1.0, 0.0).step(0.01)
    move = (parameters["conv"].detach() - before["conv"]).flatten(1) / (0.01 * 0.2 * (16 * 27) ** 0.5)
    singular = torch.linalg.svdvals(move)
    assert singular.min() > 0.6 and singular.max() < 1.3  # five iterations bring them near 1, not to it
    assert move.norm() / move.numel() ** 0.5 == pytest.approx(1 / (16 * 27) ** 0.5, rel=0.2)
    moved = parameters["head"].detach() - before["head"]
    assert torch.allclose(moved.abs(), torch.full_like(moved, 0.01), rtol=1e-3)  # AdamW's first step


def test_it_is_torchs_muon_and_torchs_adamw():
    mine = weights()
    theirs = {
        name: nn.Parameter(p.detach().flatten(1) if p.ndim > 1 else p.detach().clone()) for name, p in mine.items()
    }
    theirs = copy.deepcopy(theirs)
    muon = torch.optim.Muon(
        [theirs["conv"], theirs["linear"]], lr=0.0, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    decayed, plain = [theirs["head"], theirs["thin"]], [theirs["bias"]]
    adamw = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}], betas=(0.9, 0.98)
    )
    optimiser = MatrixOptimiser(mine.values(), CLASSES, 1.0, 0.1)
    for step in range(3):
        fill_gradients(mine, step)
        for name, p in theirs.items():
            p.grad = mine[name].grad.reshape(p.shape).clone()
        optimiser.step(0.01 / (step + 1))
        for group in (*muon.param_groups, *adamw.param_groups):
            group["lr"] = 0.01 / (step + 1)
        muon.step()
        adamw.step()
    for name, p in theirs.items():
        assert torch.equal(mine[name].detach().reshape(p.shape), p.detach()), name


def test_a_weight_that_lies_channels_last_moves_alike():
    one = weights()["conv"]
    two = nn.Parameter(one.detach().to(memory_format=torch.channels_last_3d))
    fill_gradients({"conv": one})
    two.grad = one.grad.to(memory_format=torch.channels_last_3d)
    for weight in (one, two):
        MatrixOptimiser([weight], CLASSES, 1.0, 0.01).step(0.01)
    assert not two.is_contiguous()
    torch.testing.assert_close(one, two, atol=1e-4, rtol=0)  # columns in another order, added up in bf16


def test_zero_grad_and_a_weight_without_gradient():
    parameters = weights()
    fill_gradients(parameters)
    optimiser = MatrixOptimiser(parameters.values(), CLASSES, 0.1, 0.0)
    optimiser.zero_grad()
    assert all(p.grad is None for p in parameters.values())
    before = parameters["conv"].detach().clone()
    optimiser.step(0.1)
    assert torch.equal(parameters["conv"], before)


def test_it_goes_on_from_its_state():
    one, two = weights(), weights()
    first = MatrixOptimiser(one.values(), CLASSES, 0.1, 0.01)
    fill_gradients(one)
    first.step(0.1)
    state = copy.deepcopy(first.state_dict())
    for name, p in two.items():
        p.data.copy_(one[name].data)
    second = MatrixOptimiser(two.values(), CLASSES, 0.1, 0.01)
    second.load_state_dict(state)
    for parameters, optimiser in ((one, first), (two, second)):
        fill_gradients(parameters, 2)
        optimiser.step(0.05)
    assert all(torch.equal(one[name], two[name]) for name in one)
    with pytest.raises(ValueError, match="state list: expected a list of 1"):
        MatrixOptimiser([two["bias"]], CLASSES, 0.1, 0.0).load_state_dict(state)
    with pytest.raises(ValueError, match="state dict: expected a list of 2"):
        second.load_state_dict(torch.optim.AdamW(two.values()).state_dict())


def test_a_weight_that_no_matrix_can_show_is_refused():
    weight = nn.Parameter(torch.randn(32, 3, 3, 3, 16).transpose(1, 2).transpose(1, 4))
    with pytest.raises(ValueError, match="expected it contiguous or channels last"):
        MatrixOptimiser([weight], CLASSES, 0.1, 0.0)
