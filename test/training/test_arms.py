"""Arms are painted beside the body, of its own fat, muscle and bone."""

import torch

from threedme_ros.training.arms import add_arms
from threedme_ros.training.substances import Substance
from threedme_ros.training.tissues import AIR, Tissues

SUBSTANCES = (Substance.GAS, Substance.GAS, Substance.FAT, Substance.MUSCLE, Substance.CORTICAL_BONE, Substance.LIVER)
FAT, MUSCLE, BONE, LIVER = 2, 3, 4, 5


def table(substances=SUBSTANCES):
    n = len(substances)
    return Tissues(
        torch.tensor([4 if s == Substance.LIVER else 0 for s in substances], dtype=torch.uint8), torch.arange(n),
        torch.zeros(n, dtype=torch.long), torch.tensor([s == Substance.GAS for s in substances]), torch.zeros(n),
        torch.zeros(n), torch.tensor([int(s) for s in substances]),
    )  # fmt: skip


def trunk():
    tissue = torch.full((6, 64, 128), AIR, dtype=torch.uint8)
    tissue[:, 10:54, 40:88] = LIVER
    return tissue


def test_arms_lie_in_the_air_beside_the_body():
    sides = set()
    for seed in range(20):
        tissue = trunk()
        added = add_arms(tissue, table(), torch.Generator().manual_seed(seed))
        assert torch.equal(tissue[:, 10:54, 40:88], trunk()[:, 10:54, 40:88])
        assert torch.equal(added, tissue != trunk())
        if added.any():
            assert set(tissue[added].unique().tolist()) == {FAT, MUSCLE, BONE}
        sides |= {side for side, part in (("left", added[..., :40]), ("right", added[..., 88:])) if part.any()}
    assert sides == {"left", "right"}


def test_a_case_without_the_layers_gets_none():
    tissue = trunk()
    without = (*SUBSTANCES[:4], Substance.FLUID, Substance.LIVER)
    assert not add_arms(tissue, table(without), torch.Generator().manual_seed(0)).any()
    assert torch.equal(tissue, trunk())
