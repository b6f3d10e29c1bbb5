import itertools

import pytest
import torch

from threedme_ros.training.masking import Masking, MaskingSchedule, draw_mask, masked_count, token_edges_mm

TOKEN_MM = (48.0, 48.0, 48.0)
GRID = (6, 6, 6)
STEPS = [i / 100 for i in range(101)]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def hidden_boxes(mask, size):
    """How many boxes of ``size``, cut from the best of all corners, are neither wholly hidden nor wholly seen."""
    fewest = mask.numel()
    for corner in torch.cartesian_prod(*[torch.arange(s) for s in size]):
        number = torch.zeros(mask.shape, dtype=torch.long)
        for axis, (n, s, c) in enumerate(zip(mask.shape, size, corner.tolist(), strict=True)):
            along = (torch.arange(n) + c) // s
            number = number * 100 + along.reshape([-1 if a == axis else 1 for a in range(3)])
        cut = 0
        for block in number.unique():
            inside = mask[number == block]
            cut += bool(inside.any() and not inside.all())
        fewest = min(fewest, cut)
    return fewest


def test_a_token_is_measured_along_superior_anterior_right():
    assert token_edges_mm(16, (1.0, 2.0, 3.0)) == (48.0, 32.0, 16.0)


def test_the_schedule_starts_at_single_tokens_and_ends_at_blocks_longest_across_slices():
    schedule = MaskingSchedule()
    assert schedule.at(0.0, TOKEN_MM) == Masking(0.40, (1, 1, 1), (48.0, 48.0, 48.0))
    middle = schedule.at(0.5, TOKEN_MM)  # 72, 48, 48 mm: 1.5, 1, 1 tokens
    assert middle.ratio == pytest.approx(0.625) and middle.block_tokens == (2, 1, 1)
    end = schedule.at(1.0, TOKEN_MM)
    assert end.ratio == pytest.approx(0.85)
    assert end.block_tokens == (3, 2, 2) and end.block_mm == (144.0, 96.0, 96.0)


def test_the_same_millimetres_are_more_of_smaller_tokens_and_fewer_across_thick_slices():
    assert MaskingSchedule().at(1.0, token_edges_mm(8, (3, 3, 3))).block_tokens == (6, 4, 4)
    assert MaskingSchedule().at(1.0, token_edges_mm(8, (3, 3, 6))).block_tokens == (3, 4, 4)


def test_ratio_and_block_size_never_shrink_with_progress():
    steps = [MaskingSchedule().at(p, TOKEN_MM) for p in STEPS]
    for before, after in itertools.pairwise(steps):
        assert before.ratio < after.ratio
        assert all(a <= b for a, b in zip(before.block_tokens, after.block_tokens, strict=True))


def test_fixed_is_one_masking_and_uniform_is_the_same_range_in_any_order():
    fixed = MaskingSchedule("fixed", fixed_at=0.25)
    assert {fixed.at(p, TOKEN_MM) for p in STEPS} == {MaskingSchedule().at(0.25, TOKEN_MM)}
    uniform = MaskingSchedule("uniform")
    assert {uniform.at(p, TOKEN_MM, draw=0.8) for p in STEPS} == {MaskingSchedule().at(0.8, TOKEN_MM)}


@pytest.mark.parametrize("ratio", [0.4, 0.55, 0.7, 0.85])
@pytest.mark.parametrize("block", [(1, 1, 1), (2, 1, 1), (3, 2, 2), (9, 9, 9)])
@pytest.mark.parametrize("grid", [GRID, (1, 11, 11), (2, 2, 2), (3, 7, 8)])
def test_exactly_the_asked_number_of_tokens_is_hidden(ratio, block, grid):
    n = grid[0] * grid[1] * grid[2]
    for seed in range(5):
        mask = draw_mask(grid, Masking(ratio, block, (0, 0, 0)), generator(seed))
        assert mask.shape == grid and mask.dtype == torch.bool
        assert int(mask.sum()) == min(max(round(ratio * n), 1), n - 1)


@pytest.mark.parametrize("block", [(1, 1, 1), (2, 1, 1), (3, 2, 2), (1, 2, 3)])
def test_hidden_tokens_form_whole_blocks_but_for_the_last_one(block):
    for seed in range(4):
        mask = draw_mask(GRID, Masking(0.6, block, (0, 0, 0)), generator(seed))
        assert hidden_boxes(mask, block) <= 1


def test_a_seed_is_a_mask_and_other_seeds_are_others():
    masking = Masking(0.6, (2, 1, 1), (0, 0, 0))
    same = [draw_mask(GRID, masking, generator(7)) for _ in range(2)]
    assert torch.equal(*same)
    assert not torch.equal(same[0], draw_mask(GRID, masking, generator(8)))


def test_every_token_is_hidden_as_often_as_the_ratio_says():
    masking = Masking(0.6, (3, 2, 2), (0, 0, 0))
    often = torch.stack([draw_mask(GRID, masking, generator(s)) for s in range(400)]).float().mean(0)
    assert (often - 0.6).abs().max() < 0.13  # five standard deviations of 400 draws


def test_one_token_cannot_be_both_hidden_and_seen():
    assert masked_count(0.85, 2) == 1
    with pytest.raises(ValueError, match="window of 1 token: expected at least 2"):
        draw_mask((1, 1, 1), Masking(0.5, (1, 1, 1), (0, 0, 0)), generator())


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"kind": "random"}, "masking kind 'random'"),
        ({"ratio": (0.8, 0.4)}, r"masking ratio \(0.8, 0.4\)"),
        ({"ratio": (0.4, 1.0)}, "masking ratio"),
        ({"block_mm": ((90, 0, 0), (60, 90, 90))}, "expected the second size at least the first"),
        ({"block_mm": ((0, 0), (60, 90))}, "two sizes of three numbers"),
        ({"fixed_at": 1.5}, "fixed_at 1.5"),
    ],
)
def test_a_senseless_schedule_is_refused(field, message):
    with pytest.raises(ValueError, match=message):
        MaskingSchedule(**field)


def test_progress_beyond_the_run_is_refused():
    with pytest.raises(ValueError, match=r"training progress 1\.01"):
        MaskingSchedule().at(1.01, TOKEN_MM)
