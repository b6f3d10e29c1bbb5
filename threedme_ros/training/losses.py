"""Dice + cross entropy for many classes on a CPU: one softmax, no one-hot volume, a hand-written gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

SMOOTH = 1e-5


class _DiceCrossEntropy(torch.autograd.Function):
    """See `dice_cross_entropy`. With p = softmax(z), t the true class and N voxels, for the classes present

    dice_c = 2 I_c / (P_c + T_c), I_c = sum_{t = c} p_c, P_c = sum p_c, T_c = |t = c|, and

    dL/dp_c(v) = w_d / K * (2 I_c - 2 [t(v) = c] (P_c + T_c)) / (P_c + T_c)^2,

    which goes through the softmax as p * (g - <p, g>); cross entropy adds w_ce a(v) (p - onehot), with the voxels'
    weights a(v) = T_t(v)^-balance, scaled to the sum 1.
    """

    @staticmethod
    def forward(ctx, logits: Tensor, target: Tensor, dice_weight: float, ce_weight: float, balance: float) -> Tensor:
        batch, classes = logits.shape[:2]
        p = torch.softmax(logits.float().flatten(2), 1)  # (B, C, N)
        t = target.flatten(1).long()  # (B, N)
        p_true = p.gather(1, t[:, None])[:, 0]
        truth = torch.zeros(batch, classes, device=p.device)
        overlap = torch.zeros(batch, classes, device=p.device)
        truth.scatter_add_(1, t, torch.ones_like(p_true))
        voxel_weight = truth.clamp_min(1).pow(-balance).gather(1, t)  # (B, N)
        voxel_weight *= ce_weight / (batch * voxel_weight.sum(1, keepdim=True))
        ce = -(voxel_weight * p_true.clamp_min(1e-12).log()).sum()
        overlap.scatter_add_(1, t, p_true)
        total = p.sum(2) + truth
        present = truth > 0
        present[:, 0] = False  # background is scored by the cross entropy alone
        count = present.sum().clamp_min(1)
        dice = (2 * overlap + SMOOTH) / (total + SMOOTH)
        loss = ce + dice_weight * ((1 - dice) * present).sum() / count
        scale = dice_weight * present / count
        ctx.save_for_backward(p, t, voxel_weight, scale * dice / (total + SMOOTH), scale * 2 / (total + SMOOTH))
        ctx.shape = logits.shape
        return loss

    @staticmethod
    def backward(ctx, upstream: Tensor):
        p, t, voxel_weight, everywhere, where_true = ctx.saved_tensors
        p_true = p.gather(1, t[:, None])[:, 0]
        at_true = where_true.gather(1, t)  # (B, N): minus this, at the true class
        inner = torch.einsum("bcn,bc->bn", p, everywhere) - p_true * at_true
        factor = everywhere[:, :, None] - inner[:, None]  # dice: p (g - <p, g>), the part of every class
        factor += voxel_weight[:, None]
        grad = factor.mul_(p)
        grad.scatter_add_(1, t[:, None], -(p_true * at_true + voxel_weight)[:, None])
        return grad.mul_(upstream).view(ctx.shape), None, None, None, None


def dice_cross_entropy(
    logits: Tensor, target: Tensor, dice_weight: float = 1.0, ce_weight: float = 1.0, balance: float = 0.0
) -> Tensor:
    """Soft Dice (mean over the foreground classes present in each sample) plus mean cross entropy; a scalar.

    logits: (B, C, D, H, W), any float type. target: (B, D, H, W) integer class ids below C.
    A class that a sample does not show has no Dice term; predicting it there costs cross entropy.
    balance: a voxel weighs in the cross entropy as its class has voxels in the sample to the power of minus this: 0 for
    the plain mean over voxels, 1 for the mean over classes.
    Raises ValueError for a target outside 0..C-1 or of another shape.
    """
    if target.shape != (logits.shape[0], *logits.shape[2:]):
        raise ValueError(f"target of shape {tuple(target.shape)} for logits of shape {tuple(logits.shape)}")
    low, high = int(target.min()), int(target.max())
    if low < 0 or high >= logits.shape[1]:
        raise ValueError(f"labels from {low} to {high}: expected 0 to {logits.shape[1] - 1}")
    return _DiceCrossEntropy.apply(logits, target, dice_weight, ce_weight, balance)


def region_dice(logits: Tensor, target: Tensor, regions: Sequence[tuple[int, ...]]) -> Tensor:
    """Soft Dice loss of unions of classes, mean over the regions present in each sample; a scalar, 0 if none is.

    logits (B, C, ...), target (B, ...) class ids. A region's probability is the sum of its classes'.
    """
    p = torch.softmax(logits.float().flatten(2), 1)  # (B, C, N)
    t = target.flatten(1)
    losses, present = [], []
    for ids in regions:
        chosen = p[:, list(ids)].sum(1)
        truth = torch.isin(t, torch.tensor(ids, dtype=t.dtype, device=t.device)).float()
        dice = (2 * (chosen * truth).sum(1) + SMOOTH) / (chosen.sum(1) + truth.sum(1) + SMOOTH)
        losses.append(1 - dice)
        present.append(truth.any(1))
    shown = torch.stack(present).float()
    return (torch.stack(losses) * shown).sum() / shown.sum().clamp_min(1)
