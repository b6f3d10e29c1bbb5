"""The loss against hand-worked values, autograd and MONAI."""

import math

import pytest
import torch
from monai.losses import DiceCELoss

from threedme_ros.training.losses import dice_cross_entropy


def test_perfect_prediction_costs_nothing():
    target = torch.randint(0, 3, (1, 4, 4, 4), generator=torch.Generator().manual_seed(0))
    logits = 50.0 * torch.nn.functional.one_hot(target, 3).movedim(-1, 1).float()
    assert dice_cross_entropy(logits, target).item() == pytest.approx(0, abs=1e-4)


def test_undecided_prediction_costs_what_the_formula_says():
    # four voxels, two classes, p = 1/2 everywhere: cross entropy ln 2; class 1 covers one voxel: dice 2 * 0.5 / (2 + 1)
    target = torch.tensor([0, 0, 0, 1]).reshape(1, 1, 2, 2)
    assert dice_cross_entropy(torch.zeros(1, 2, 1, 2, 2), target).item() == pytest.approx(
        math.log(2) + 1 - 1 / 3, abs=1e-4
    )


def test_balanced_cross_entropy_weighs_classes_by_their_size():
    # three voxels of class 0, one of class 1, p(true) = 0.8 and 0.2: class means are ln 1.25 and ln 5
    target = torch.tensor([0, 0, 0, 1]).reshape(1, 1, 2, 2)
    logits = torch.zeros(1, 2, 1, 2, 2)
    logits[:, 0] = math.log(4)

    def cost(balance):
        return dice_cross_entropy(logits, target, dice_weight=0.0, balance=balance).item()

    assert cost(0.0) == pytest.approx((3 * math.log(1.25) + math.log(5)) / 4)
    assert cost(1.0) == pytest.approx((math.log(1.25) + math.log(5)) / 2)
    root = math.sqrt(3)
    assert cost(0.5) == pytest.approx((root * math.log(1.25) + math.log(5)) / (root + 1))


def reference(logits, target, balance=0.0):
    """The same loss from one-hot volumes, for autograd to differentiate."""
    p = logits.softmax(1).flatten(2)
    t = torch.nn.functional.one_hot(target.flatten(1), logits.shape[1]).transpose(1, 2).to(p.dtype)
    weight = (t * t.sum(2, keepdim=True).clamp_min(1).pow(-balance)).sum(1)
    ce = -((t * p.log()).sum(1) * weight / weight.sum(1, keepdim=True)).sum(1).mean()
    dice = (2 * (p * t).sum(2) + 1e-5) / (p.sum(2) + t.sum(2) + 1e-5)
    seen = t.sum(2) > 0
    seen[:, 0] = False
    return ce + ((1 - dice) * seen).sum() / seen.sum()


@pytest.mark.parametrize("balance", [0.0, 0.5])
@pytest.mark.parametrize("shape", [(2, 5, 3, 4, 5), (1, 7, 8, 2, 3, 2)])
def test_gradient_equals_autograd(shape, balance):
    generator = torch.Generator().manual_seed(1)
    logits = (3 * torch.randn(shape, generator=generator)).requires_grad_()
    target = torch.randint(0, shape[1] - 1, (shape[0], *shape[2:]), generator=generator)  # the last class is absent
    loss = 3 * dice_cross_entropy(logits, target, balance=balance)
    expected = 3 * reference(logits, target, balance)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    (mine,) = torch.autograd.grad(loss, logits)
    (theirs,) = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_equals_monai_where_every_class_is_present():
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(1, 4, 6, 6, 6, generator=generator)
    target = torch.randint(0, 4, (1, 6, 6, 6), generator=generator)
    monai = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)(logits, target[:, None])
    assert dice_cross_entropy(logits, target).item() == pytest.approx(monai.item(), abs=1e-4)


def test_label_outside_the_classes_is_named():
    with pytest.raises(ValueError, match="labels from 0 to 9: expected 0 to 2"):
        dice_cross_entropy(torch.zeros(1, 3, 1, 1, 2), torch.tensor([0, 9]).reshape(1, 1, 1, 2))
