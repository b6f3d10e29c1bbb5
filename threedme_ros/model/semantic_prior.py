"""What the network's own classes say about a click, added to the prompt decoder's logits.

The first foreground click names a structure. Where the network is sure of its class, that class is a strong hint, and
where it sees background there (a structure it was never taught) it has nothing to say. The other clicks correct: around
them the hint fades.
"""

from __future__ import annotations

import torch
from torch import Tensor

from threedme_ros.model.embedding import Embedding
from threedme_ros.model.layers import depth_to_space
from threedme_ros.model.prompt_decoder import Clicks, bells, cell_of

WEIGHT, LIMIT = 3.0, 5.0
"""Of the class's log odds, and where these are cut off. Chosen by the first click's Dice on the training patients."""
FADE_MM = 20.0


@torch.no_grad()
def semantic_prior(embedding: Embedding, clicks: Clicks) -> Tensor:
    """Logits (1, 1, D, H, W): w (1 - p_background) clip(logit p_class), less where later clicks contradict it.

    Positive ones fade around background clicks, negative ones around every foreground click but the first.
    """
    shape = embedding.log_normaliser.shape[2:]
    first = int(clicks.foreground.nonzero()[0])
    classes = embedding.class_probabilities(cell_of(clicks.voxels[first], 2, shape))
    odds = torch.logit(embedding.likeness(classes), eps=1e-6).clamp(-LIMIT, LIMIT)
    prior = WEIGHT * (1 - classes[0]) * odds
    later = torch.arange(len(clicks.foreground), device=clicks.foreground.device) != first
    for wrong, side in ((prior > 0, False), (prior < 0, True)):
        chosen = later & (clicks.foreground == side)
        if chosen.any():
            # as foreground, whatever they are: `Clicks` wants one, and only their places count here
            places = Clicks(clicks.voxels[chosen], torch.ones_like(clicks.foreground[chosen]), clicks.spacing_mm)
            fade = bells(places, True, shape, 2, (FADE_MM,))
            prior = torch.where(wrong, prior * (1 - fade), prior)
    return depth_to_space(prior)
