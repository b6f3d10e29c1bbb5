"""Arms beside the trunk: most patients lie with them there, and a scan that shows none teaches nothing about them."""

from __future__ import annotations

import torch
from torch import Tensor

from .draws import chance, integer, uniform
from .substances import Substance
from .tissues import AIR, Tissues

LAYERS = (Substance.FAT, Substance.MUSCLE, Substance.CORTICAL_BONE)


def add_arms(tissue: Tensor, tissues: Tissues, generator: torch.Generator) -> Tensor:
    """Paint one or two arms into the air of the tissue map (D, H, W), in place; where they are, bool.

    They are made of the case's unlabelled fat, muscle and bone; a case without all three gets no arms.
    """
    ids = [((tissues.target == 0) & (tissues.substance == substance)).nonzero().flatten() for substance in LAYERS]
    body = (tissue > AIR).any(0).nonzero()
    if not all(map(len, ids)) or not len(body):
        return torch.zeros_like(tissue, dtype=torch.bool)
    fat, muscle, bone = (int(found[0]) for found in ids)
    (low_h, low_w), (high_h, high_w) = body.min(0).values.tolist(), body.max(0).values.tolist()
    height, width = tissue.shape[1:]
    h = torch.arange(height, dtype=torch.float32)[:, None]
    w = torch.arange(width, dtype=torch.float32)[None, :]
    arm = torch.zeros(height, width, dtype=torch.uint8)
    for edge, side in ((low_w, -1), (high_w, 1)):
        size = uniform(generator, 8, 17)
        flatness, gap = uniform(generator, 0.7, 1.3), uniform(generator, -1, 6)
        at_h = uniform(generator, low_h, (low_h + 2 * high_h) / 3)
        at_w = edge + side * (size + gap)
        if chance(generator, 0.2):
            continue
        radius = torch.hypot((h - at_h) / flatness, w - at_w) / size
        arm[radius < 1] = fat
        arm[radius < uniform(generator, 0.75, 0.95)] = muscle
        bones = integer(generator, 1, 2)  # upper arm, forearm
        for number in range(bones):
            off = (number - (bones - 1) / 2) * 0.7 * size
            arm[torch.hypot(h - at_h - off * 0.5, w - at_w - off) < uniform(generator, 2.0, 4.5) / bones**0.5] = bone
    added = (tissue == AIR) & (arm > 0)
    tissue.copy_(torch.where(added, arm, tissue))
    return added
