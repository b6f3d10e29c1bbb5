"""The tissue table of a procedural trunk."""

from dataclasses import replace

import numpy as np
import pytest

from threedme_ros.anatomy import Anatomy
from threedme_ros.model.config import Preprocessing
from threedme_ros.share import share_path
from threedme_ros.training.procedural.palette import ROWS, Palette
from threedme_ros.training.substances import Substance
from threedme_ros.training.tissues import AIR, OUTSIDE


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return Anatomy.from_yaml(share_path("config/anatomy.yaml"))


def tissues(anatomy: Anatomy, preprocessing: Preprocessing | None = None):
    return Palette().tissues(anatomy, preprocessing or Preprocessing(), np.random.default_rng(0))


def test_every_structure_of_the_model_has_a_tissue(anatomy):
    assert set(Palette().targets(anatomy).tolist()) == {0, *(s.id for s in anatomy)}


def test_a_structure_the_anatomy_lacks_is_background(anatomy):
    few = Anatomy([s for s in anatomy if s.name in ("liver", "aorta")])
    targets = Palette().targets(few)
    assert targets[Palette()["liver"]] == few["liver"].id
    assert targets[Palette()["spleen"]] == 0


def test_outside_and_air_come_first():
    assert (Palette()["outside"], Palette()["air"]) == (OUTSIDE, AIR)


def test_dark_tissues_are_gas_or_lung(anatomy):
    table = tissues(anatomy)
    assert set(table.substance[table.dark].tolist()) == {Substance.GAS, Substance.LUNG}


def test_both_kidneys_look_alike_and_are_two_classes(anatomy):
    table, palette = tissues(anatomy), Palette()
    right, left = palette["right kidney cortex"], palette["left kidney cortex"]
    assert table.family[right] == table.family[left]
    assert table.target[right] != table.target[left]


def test_means_follow_the_ct_window(anatomy):
    wide = tissues(anatomy, replace(Preprocessing(), ct_window_hu=(-1000.0, 1000.0)))
    narrow = tissues(anatomy)
    liver = Palette()["liver"]
    hu = (narrow.mean[liver].item() + 1) / 2 * 800 - 300
    assert wide.mean[liver].item() == pytest.approx(hu / 1000, abs=1e-5)
    assert 25 < hu < 90
    assert wide.ct_window_hu == (-1000.0, 1000.0)
    assert len(narrow) == len(ROWS) < 256
