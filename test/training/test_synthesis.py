"""Images from label maps: tissues are found, labels are untouched, and a seed repeats."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from threedme_ros.training.substances import Substance
from threedme_ros.training.synthesis import (
    SynthesisConfig,
    patches,
    percentile_window,
    real_image,
    synthesise,
    texture,
)
from threedme_ros.training.tissues import AIR, OUTSIDE, body_mask, find_tissues


def to_unit(hu):
    return (np.clip(hu, -300, 500) + 300) / 400 - 1


@pytest.fixture(scope="module")
def case():
    """A body of soft tissue (HU 40) with fat, two organs, bowel gas, and a table outside."""
    hu = np.full((16, 40, 40), -1000.0)
    hu[:, 5:32, 5:35] = 60.0
    hu[:, 5:9, 5:35] = -100.0
    structures = np.zeros(hu.shape, np.uint8)
    structures[4:12, 12:20, 10:20] = 20
    hu[6:8, 14:16, 12:16] = -900.0  # gas inside structure 20
    structures[:, 24:30, 15:25] = 7
    hu[structures == 7] = 300.0
    hu[:, 37:39, :] = 200.0  # the table
    target = np.where(structures == 20, 4, 0).astype(np.uint8)
    image = to_unit(hu).astype(np.float32)
    tissue, tissues = find_tissues(image, structures, target, {20: 1, 7: 2}, {7: 3}, to_unit)
    return image, structures, target, tissue, tissues


def test_tissues_give_the_target_labels_back(case):
    _, _, target, tissue, tissues = case
    assert np.array_equal(tissues.target.numpy()[tissue], target)


def test_air_and_table_around_the_body_are_one_tissue(case):
    _, _, _, tissue, _ = case
    assert (tissue[:, :4] == AIR).all() and (tissue[:, 37:39] == AIR).all()
    assert not (tissue == OUTSIDE).any()


def test_fat_soft_tissue_and_gas_are_told_apart(case):
    _, _, _, tissue, tissues = case
    fat, soft, gas, organ = tissue[0, 6, 20], tissue[0, 22, 30], tissue[6, 14, 13], tissue[5, 13, 11]
    assert len({int(v) for v in (fat, soft, gas, organ)}) == 4
    assert tissues.dark[int(gas)] and tissues.target[int(gas)] == 4
    assert tissues.mean[int(fat)] == pytest.approx(to_unit(-100.0), abs=0.02)


def test_body_mask_fills_bowel_gas():
    dense = np.zeros((4, 20, 20), bool)
    dense[:, 3:17, 3:17] = True
    dense[:, 8:11, 8:11] = False
    assert body_mask(dense)[:, 4:16, 4:16].all()
    assert not body_mask(dense)[:, :3].any()


@pytest.mark.parametrize("seed", range(6))
def test_synthesis_repeats_from_its_seed_and_keeps_the_outside(case, seed):
    image, _, _, tissue, tissues = case
    image, tissue = torch.from_numpy(image), torch.from_numpy(tissue.copy())
    tissue[:2] = OUTSIDE
    first, again, other = (
        synthesise(image.clone(), tissue, tissues, torch.Generator().manual_seed(s)) for s in (seed, seed, seed + 99)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first[:2].eq(-1).all() and first.min() >= -1 and first.max() <= 1


def test_too_many_tissues_are_refused():
    structures = np.arange(4096, dtype=np.int64).reshape(16, 16, 16) // 16
    with pytest.raises(ValueError, match="more than 256 tissues"):
        find_tissues(np.zeros((16, 16, 16), np.float32), structures, structures % 2, {}, {}, to_unit)


def test_gut_is_split_into_content_and_wall_and_bone_into_marrow_and_cortex():
    hu = np.full((14, 40, 40), 60.0)
    structures = np.zeros(hu.shape, np.uint8)
    structures[2:12, 8:20, 8:20] = 20
    structures[2:12, 24:34, 24:34] = 25
    hu[2:12, 24:34, 24:34], hu[2:12, 24, 24:34] = 200.0, 480.0
    substances = {
        20: (Substance.GUT_CONTENT, Substance.GUT_WALL), 25: (Substance.MARROW, Substance.CORTICAL_BONE),
    }  # fmt: skip
    image = to_unit(hu).astype(np.float32)
    tissue, tissues = find_tissues(image, structures, np.zeros_like(structures), {}, {}, to_unit, substances)
    made_of = tissues.substance.numpy()[tissue]
    assert made_of[6, 14, 14] == Substance.GUT_CONTENT and made_of[6, 8, 14] == made_of[2, 14, 14] == Substance.GUT_WALL
    assert made_of[6, 30, 30] == Substance.MARROW and made_of[6, 24, 30] == Substance.CORTICAL_BONE


QUIET = SynthesisConfig(acquisition=0.0, artefacts=0.0, patches=0.0, recontrast=0.0)


def test_a_real_image_with_everything_switched_off_is_the_scan(case):
    image, _, _, tissue, tissues = case
    image, tissue = torch.from_numpy(image), torch.from_numpy(tissue)
    for seed in range(5):
        assert torch.equal(real_image(image, tissue, tissues, torch.Generator().manual_seed(seed), QUIET), image)


@pytest.mark.parametrize("contrasts", [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_every_contrast_needs_no_scan_and_stays_in_range(case, contrasts):
    _, _, _, tissue, tissues = case
    config = SynthesisConfig(contrasts, artefacts=1.0)
    for seed in range(12):
        made = synthesise(None, torch.from_numpy(tissue), tissues, torch.Generator().manual_seed(seed), config)
        assert torch.isfinite(made).all() and made.min() >= -1 and made.max() <= 1 and made.std() > 0.02


def test_ct_is_left_in_its_window_and_mr_is_stretched_to_its_percentiles(case):
    _, _, _, tissue, tissues = case
    tissue = torch.from_numpy(tissue)
    spans = {}
    for name, contrasts in (("ct", (1, 0, 0)), ("mr", (0, 1, 0))):
        config = replace(QUIET, contrasts=contrasts)
        made = [synthesise(None, tissue, tissues, torch.Generator().manual_seed(s), config) for s in range(12)]
        spans[name] = [float(image[tissue > 1].max()) for image in made]
    assert min(spans["mr"]) > 0.95 and min(spans["ct"]) < 0.9


def test_percentiles_leave_out_what_is_ignored():
    image = torch.linspace(0, 1, 4096).view(16, 16, 16)
    ignored = image < 0.5
    stretched = percentile_window(image, ignored, torch.Generator().manual_seed(0))
    assert stretched[ignored].max() < -0.95 and stretched[-1, -1, -1] == 1
    assert abs(stretched[~ignored].mean()) < 0.2  # every third slice is looked at
    flat = torch.full((8, 8, 8), 0.2)
    assert torch.equal(percentile_window(flat, flat > 1, torch.Generator().manual_seed(0)), flat)


def test_texture_has_unit_variance_and_patches_few_values():
    deviations = [texture((32, 32, 32), torch.Generator().manual_seed(seed)).std().item() for seed in range(20)]
    assert 0.8 < np.mean(deviations) < 1.2
    for kinds in (2, 5):
        made = patches((40, 40, 40), kinds, torch.Generator().manual_seed(1))
        assert 2 <= len(made.unique()) <= kinds
        assert (made.diff(dim=0) == 0).float().mean() > 0.8  # patches, not noise
