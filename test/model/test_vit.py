import torch

from threedme_ros.model.config import ModelConfig
from threedme_ros.model.vit import ViTBranch, rotary_angles, rotate


def attention_logit(query, key, shape, at_query, at_key):
    angles = rotary_angles(shape, query.shape[-1])
    flat = [(d * shape[1] + h) * shape[2] + w for d, h, w in (at_query, at_key)]
    q, k = (rotate(x, angles[i].cos(), angles[i].sin()) for x, i in zip((query, key), flat, strict=True))
    return (q * k).sum()


def test_rotary_logits_depend_on_the_relative_position_only():
    query, key = torch.randn(2, 48)
    near_corner = attention_logit(query, key, (6, 7, 8), (0, 1, 2), (2, 0, 3))
    shifted = attention_logit(query, key, (9, 8, 7), (3, 4, 3), (5, 3, 4))
    torch.testing.assert_close(near_corner, shifted, rtol=0, atol=1e-4)


def test_rotary_tells_the_three_axes_apart():
    query, key = torch.randn(2, 48)
    steps = [attention_logit(query, key, (3, 3, 3), (0, 0, 0), step) for step in [(1, 0, 0), (0, 1, 0), (0, 0, 1)]]
    assert len({round(s.item(), 3) for s in steps}) == 3


def test_the_branch_takes_any_window_shape():
    branch = ViTBranch(ModelConfig.of_size("small", 2))
    assert branch(torch.randn(2, 64, 4, 8, 12)).shape == (2, 192, 1, 2, 3)
