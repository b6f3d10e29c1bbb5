"""CT phases, MR sequences and free draws keep to what they promise."""

import pytest
import torch

from threedme_ros.training.contrast import (
    content_hu,
    ct_contrast,
    enhancement_hu,
    free_contrast,
    mr_contrast,
    unlabelled_patches,
)
from threedme_ros.training.substances import LOOKS, Substance
from threedme_ros.training.tissues import BONE, Tissues

ORDER = (
    Substance.GAS, Substance.GAS, Substance.FAT, Substance.MUSCLE, Substance.CORTICAL_BONE, Substance.ARTERY,
    Substance.LIVER, Substance.SPLEEN, Substance.KIDNEY, Substance.FLUID, Substance.GUT_CONTENT, Substance.URINE,
)  # fmt: skip
AT = {substance: number for number, substance in enumerate(ORDER)}
COUNT = 150


@pytest.fixture(scope="module")
def tissues():
    """One tissue of each substance, as it is on plain CT; liver and kidney have a label."""
    hu = torch.tensor([LOOKS[s].hu for s in ORDER])
    target = torch.tensor([4 if s == Substance.LIVER else 2 if s == Substance.KIDNEY else 0 for s in ORDER])
    kind = torch.tensor([BONE if s == Substance.CORTICAL_BONE else 0 for s in ORDER])
    return Tissues(
        target.to(torch.uint8), torch.arange(len(ORDER)), kind, torch.tensor([s == Substance.GAS for s in ORDER]),
        ((hu + 300) / 400 - 1).clamp(-1, 1), torch.full((len(ORDER),), 0.02), torch.tensor([int(s) for s in ORDER]),
    )  # fmt: skip


def drawn(function, tissues, **options):
    return torch.stack([
        function(tissues, torch.Generator().manual_seed(seed), **options) for seed in range(COUNT)
    ])  # fmt: skip


def test_a_substance_follows_from_kind_and_dark_where_none_is_given(tissues):
    plain = Tissues(*(getattr(tissues, n) for n in ("target", "family", "kind", "dark", "mean", "std")))
    assert plain.substance[AT[Substance.CORTICAL_BONE]] == Substance.MARROW
    assert plain.substance[0] == Substance.GAS and plain.substance[AT[Substance.LIVER]] == Substance.UNKNOWN
    with pytest.raises(ValueError, match=r"family \(1,\): expected \(12,\)"):
        Tissues(tissues.target, torch.zeros(1), tissues.kind, tissues.dark, tissues.mean, tissues.std)


def test_contrast_goes_to_blood_and_organs_together_and_to_fat_never(tissues):
    added = drawn(enhancement_hu, tissues)
    assert added[:, AT[Substance.FAT]].eq(0).all() and added[:, AT[Substance.GUT_CONTENT]].eq(0).all()
    artery, spleen, kidney = (added[:, AT[s]] for s in (Substance.ARTERY, Substance.SPLEEN, Substance.KIDNEY))
    without = artery == 0
    assert 0.1 < without.float().mean() < 0.4
    assert spleen[without].eq(0).all() and (spleen[~without] > 0).all() and (kidney[~without] > 30).all()
    assert torch.corrcoef(torch.stack([artery, spleen]))[0, 1] > 0.5


def test_gut_and_bladder_are_bright_only_with_contrast_in_them(tissues):
    native = torch.tensor([float(LOOKS[s].hu) for s in ORDER])
    filled = torch.stack([content_hu(tissues, native, torch.Generator().manual_seed(s)) for s in range(COUNT)])
    gut, urine = filled[:, AT[Substance.GUT_CONTENT]], filled[:, AT[Substance.URINE]]
    assert ((gut <= 60) | (gut >= 100)).all() and 0.1 < (gut >= 100).float().mean() < 0.4
    assert 0.1 < (urine >= 60).float().mean() < 0.45
    assert filled[:, AT[Substance.MUSCLE]].eq(LOOKS[Substance.MUSCLE].hu).all()


@pytest.mark.parametrize("real", [True, False])
def test_ct_keeps_fat_below_muscle_below_bone(tissues, real):
    mean = drawn(ct_contrast, tissues, real=real)
    fat, muscle, bone = (mean[:, AT[s]] for s in (Substance.FAT, Substance.MUSCLE, Substance.CORTICAL_BONE))
    assert ((fat < muscle).float().mean() > 0.95) and ((muscle < bone).float().mean() > 0.97)
    assert mean[:, 0].max() <= -0.8


def test_mr_shows_fluid_dark_or_brightest_fat_bright_or_suppressed_bone_dark(tissues):
    mean = drawn(mr_contrast, tissues)
    fat, fluid, muscle, bone, artery = (
        mean[:, AT[s]]
        for s in (Substance.FAT, Substance.FLUID, Substance.MUSCLE, Substance.CORTICAL_BONE, Substance.ARTERY)
    )
    assert 0.2 < (fluid > muscle).float().mean() < 0.8
    assert 0.3 < (fat > muscle).float().mean() < 0.9
    assert (bone < muscle).float().mean() > 0.8
    assert 0.2 < (artery > muscle).float().mean() < 0.9
    assert mean[:, 0].max() < -0.85 and mean[:, 0].min() >= -1


def test_free_draws_put_tissues_in_any_order_but_gas_last(tissues):
    mean = drawn(free_contrast, tissues)
    for one, other in ((Substance.FAT, Substance.MUSCLE), (Substance.LIVER, Substance.SPLEEN)):
        assert 0.3 < (mean[:, AT[one]] > mean[:, AT[other]]).float().mean() < 0.7
    assert mean[:, 0].max() <= -0.75


def test_patches_are_for_unlabelled_soft_tissue(tissues):
    chosen = torch.stack([
        unlabelled_patches(tissues, torch.Generator().manual_seed(seed))[0] for seed in range(COUNT)
    ]).any(0)  # fmt: skip
    assert chosen[AT[Substance.FAT]] and chosen[AT[Substance.MUSCLE]]
    for never in (Substance.LIVER, Substance.KIDNEY, Substance.CORTICAL_BONE, Substance.GAS):
        assert not chosen[AT[never]]
