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

    which goes through the softmax as p * (g - <p, g>); cross entropy adds w_ce (p - onehot) / N.
    """

    @staticmethod
    def forward(ctx, logits: Tensor, target: Tensor, dice_weight: float, ce_weight: float) -> Tensor:
        batch, classes = logits.shape[:2]
        p = torch.softmax(logits.float().flatten(2), 1)  # (B, C, N)
        t = target.flatten(1).long()  # (B, N)
        p_true = p.gather(1, t[:, None])[:, 0]
        ce = -p_true.clamp_min(1e-12).log().mean()
        truth = torch.zeros(batch, classes, device=p.device)
        overlap = torch.zeros(batch, classes, device=p.device)
        truth.scatter_add_(1, t, torch.ones_like(p_true))
        overlap.scatter_add_(1, t, p_true)
        total = p.sum(2) + truth
        present = truth > 0
        present[:, 0] = False  # background is scored by the cross entropy alone
        count = present.sum().clamp_min(1)
        dice = (2 * overlap + SMOOTH) / (total + SMOOTH)
        loss = ce_weight * ce + dice_weight * ((1 - dice) * present).sum() / count
        scale = dice_weight * present / count
        ctx.save_for_backward(p, t, scale * dice / (total + SMOOTH), scale * 2 / (total + SMOOTH))
        ctx.shape, ctx.ce_weight = logits.shape, ce_weight
        return loss

    @staticmethod
    def backward(ctx, upstream: Tensor):
        p, t, everywhere, where_true = ctx.saved_tensors
        batch, _, voxels = p.shape
        p_true = p.gather(1, t[:, None])[:, 0]
        at_true = where_true.gather(1, t)  # (B, N): minus this, at the true class
        inner = torch.einsum("bcn,bc->bn", p, everywhere) - p_true * at_true
        factor = everywhere[:, :, None] - inner[:, None]  # dice: p (g - <p, g>), the part of every class
        factor += ctx.ce_weight / (batch * voxels)
        grad = factor.mul_(p)
        grad.scatter_add_(1, t[:, None], -(p_true * at_true + ctx.ce_weight / (batch * voxels))[:, None])
        return grad.mul_(upstream).view(ctx.shape), None, None, None


def dice_cross_entropy(logits: Tensor, target: Tensor, dice_weight: float = 1.0, ce_weight: float = 1.0) -> Tensor:
    """Soft Dice (mean over the foreground classes present in each sample) plus mean cross entropy; a scalar.

    logits: (B, C, D, H, W), any float type. target: (B, D, H, W) integer class ids below C.
    A class that a sample does not show has no Dice term; predicting it there costs cross entropy.
    Raises ValueError for a target outside 0..C-1 or of another shape.
    """
    if target.shape != (logits.shape[0], *logits.shape[2:]):
        raise ValueError(f"target of shape {tuple(target.shape)} for logits of shape {tuple(logits.shape)}")
    low, high = int(target.min()), int(target.max())
    if low < 0 or high >= logits.shape[1]:
        raise ValueError(f"labels from {low} to {high}: expected 0 to {logits.shape[1] - 1}")
    return _DiceCrossEntropy.apply(logits, target, dice_weight, ce_weight)


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
