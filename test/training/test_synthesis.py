"""Images from label maps: tissues are found, labels are untouched, and a seed repeats."""

import numpy as np
import pytest
import torch

from threedme_ros.training.synthesis import synthesise
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
