"""A procedural trunk holds together as a body does: sides, order front to back, volumes, all under the skin."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from threedme_ros.anatomy import Anatomy
from threedme_ros.model.config import Preprocessing
from threedme_ros.share import share_path
from threedme_ros.training.data import WindowStream
from threedme_ros.training.procedural import procedural_case, procedural_cases
from threedme_ros.training.procedural.canvas import Canvas
from threedme_ros.training.procedural.case import paint_trunk
from threedme_ros.training.procedural.organs import paint_kidneys
from threedme_ros.training.procedural.palette import Palette
from threedme_ros.training.procedural.trunk import Habitus, Trunk, paint_frame
from threedme_ros.training.window_config import WindowConfig

ANATOMY = Anatomy.from_yaml(share_path("config/anatomy.yaml"))
COARSE = Preprocessing(spacing_mm=(5.0, 5.0, 5.0))
SEEDS = (1, 2, 3, 5)
S, A, R = 0, 1, 2
# in ml, wide enough for thin and obese bodies, of which some are cut off above and below
TEXTBOOK_ML = {
    "spleen": (50, 600),
    "kidney_right": (70, 300),
    "kidney_left": (70, 300),
    "liver": (900, 2700),
    "stomach": (100, 1200),
    "pancreas": (25, 150),
    "colon": (350, 1900),
    "small_bowel": (350, 2200),
    "urinary_bladder": (25, 850),
    "aorta": (30, 200),
    "inferior_vena_cava": (25, 180),
    "vertebrae": (350, 950),
    "hips": (400, 1100),
    "ribs": (180, 550),
    "autochthon": (600, 2000),
    "iliopsoas": (350, 1300),
}
# first is further along the axis than second: R is the patient's right, A the front, S the head
RELATIONS = [
    ("liver", R, "vertebrae"),
    ("vertebrae", R, "spleen"),
    ("vertebrae", R, "stomach"),
    ("inferior_vena_cava", R, "aorta"),
    ("kidney_right", R, "inferior_vena_cava"),
    ("aorta", R, "kidney_left"),
    ("spleen", S, "urinary_bladder"),
    ("vertebrae", S, "urinary_bladder"),
    ("liver", S, "small_bowel"),
    ("small_bowel", S, "urinary_bladder"),
    ("stomach", A, "kidney_left"),
    ("pancreas", A, "kidney_right"),
    ("small_bowel", A, "kidney_right"),
    ("small_bowel", A, "kidney_left"),
    ("aorta", A, "vertebrae"),
    ("vertebrae", A, "autochthon"),
    ("iliopsoas", A, "autochthon"),
    ("urinary_bladder", A, "vertebrae"),
]


@pytest.fixture(scope="module")
def cases():
    return [procedural_case(seed, ANATOMY, COARSE) for seed in SEEDS]


def voxels(case, name: str) -> np.ndarray:
    """(N, 3) coordinates (S, A, R) of a structure."""
    return np.argwhere(case.labels.numpy() == ANATOMY[name].id)


def tissue_voxels(case, name: str) -> np.ndarray:
    return np.argwhere(case.tissue.numpy() == Palette()[name])


def test_a_case_is_what_training_expects(cases):
    for case in cases:
        assert case.real is False
        assert case.image.shape == case.tissue.shape == case.labels.shape
        assert (case.image.dtype, case.tissue.dtype, case.labels.dtype) == (torch.float32, torch.uint8, torch.uint8)
        assert case.image.min() >= -1 and case.image.max() <= 1
        assert torch.equal(case.tissues.target[case.tissue.int()], case.labels)
        assert set(case.locations) == {s.id for s in ANATOMY}


def test_the_same_seed_gives_the_same_trunk_and_another_seed_another(cases):
    again = procedural_case(SEEDS[0], ANATOMY, COARSE)
    assert torch.equal(again.tissue, cases[0].tissue)
    assert torch.equal(again.image, cases[0].image)
    assert torch.equal(again.tissues.mean, cases[0].tissues.mean)
    assert cases[0].tissue.shape != cases[1].tissue.shape or not torch.equal(cases[0].tissue, cases[1].tissue)


@pytest.mark.parametrize(("first", "axis", "second"), RELATIONS)
def test_structures_lie_where_they_do_in_a_body(cases, first, axis, second):
    for case in cases:
        assert voxels(case, first)[:, axis].mean() > voxels(case, second)[:, axis].mean(), case.name


def test_volumes_are_those_of_adults(cases):
    for case in cases:
        for name, (low, high) in TEXTBOOK_ML.items():
            assert low < len(voxels(case, name)) * 0.125 < high, (case.name, name)


def test_the_colon_goes_up_on_the_right_and_down_on_the_left(cases):
    for case in cases:
        spine, colon = voxels(case, "vertebrae")[:, R].mean(), voxels(case, "colon")
        kidneys = np.concatenate([voxels(case, "kidney_right"), voxels(case, "kidney_left")])
        level = colon[np.abs(colon[:, S] - kidneys[:, S].min()) < 2]
        assert (level[:, R] > spine + 8).any() and (level[:, R] < spine - 8).any()
        rectum = colon[colon[:, S] < np.quantile(colon[:, S], 0.03)]
        assert abs(rectum[:, R].mean() - spine) * 5 < 40


def test_the_liver_is_one_piece(cases):
    for case in cases:
        assert ndimage.label(case.labels.numpy() == ANATOMY["liver"].id)[1] == 1


def test_the_bladder_lies_between_the_hip_bones(cases):
    for case in cases:
        bladder, hips = voxels(case, "urinary_bladder"), voxels(case, "hips")
        assert (bladder.mean(0) > hips.min(0)).all() and (bladder.mean(0) < hips.max(0)).all()


def test_nothing_of_the_model_touches_the_air():
    thin_with_a_broad_pelvis = procedural_case(5, ANATOMY, replace(COARSE, spacing_mm=(4.0, 4.0, 4.0)))
    near = ndimage.binary_dilation(thin_with_a_broad_pelvis.labels.numpy() > 0)
    assert not (near & (thin_with_a_broad_pelvis.tissue.numpy() == Palette()["air"])).any()


def test_lungs_lie_above_the_liver_and_discs_between_the_vertebrae(cases):
    for case in cases:
        assert tissue_voxels(case, "lung")[:, S].mean() > voxels(case, "liver")[:, S].mean()
        discs, spine = tissue_voxels(case, "disc"), voxels(case, "vertebrae")
        assert spine[:, S].min() < discs[:, S].min() and np.abs(discs[:, R].mean() - spine[:, R].mean()) < 4


def test_trunks_differ_in_size_and_fat(cases):
    fat = [(case.tissue == Palette()["fat"]).float().mean().item() for case in cases]
    assert len({tuple(case.labels.shape) for case in cases}) > 1
    assert max(fat) > 1.3 * min(fat)


@pytest.mark.parametrize("side", ["kidney_right", "kidney_left"])
def test_a_missing_kidney_leaves_the_other(side):
    rng, habitus = np.random.default_rng(0), Habitus.draw(np.random.default_rng(0))
    canvas = Canvas(rng, (90, 60, 90), (6, 6, 6), (-190, -150, -270), Palette())
    trunk = Trunk(canvas, habitus)
    paint_frame(canvas, trunk)
    paint_kidneys(canvas, trunk, missing=1 if side == "kidney_right" else -1)
    shown = set(canvas.palette.targets(ANATOMY)[canvas.tissue].ravel().tolist()) - {0}
    assert shown == {ANATOMY["kidney_right"].id, ANATOMY["kidney_left"].id} - {ANATOMY[side].id}


def test_a_trunk_keeps_its_size_in_mm_on_a_grid_of_uneven_voxels(cases):
    uneven = procedural_case(SEEDS[0], ANATOMY, replace(COARSE, spacing_mm=(7.0, 5.0, 6.0)))
    for name in ("liver", "vertebrae", "hips"):
        extent = np.ptp(voxels(uneven, name), axis=0) * (6, 5, 7)
        expected = np.ptp(voxels(cases[0], name), axis=0) * 5
        np.testing.assert_allclose(extent, expected, rtol=0.12, atol=14)


def test_the_first_trunks_of_a_run_do_not_depend_on_how_many_follow():
    told = []
    preprocessing = replace(COARSE, spacing_mm=(8.0, 8.0, 8.0))
    one = procedural_cases(1, 4, ANATOMY, preprocessing)
    two = procedural_cases(2, 4, ANATOMY, preprocessing, progress=lambda done, count: told.append((done, count)))
    assert told == [(1, 2), (2, 2)]
    assert torch.equal(one[0].tissue, two[0].tissue) and one[0].name == two[0].name != two[1].name
    assert procedural_cases(0, 4, ANATOMY, preprocessing) == []


def test_windows_of_a_trunk_are_drawn_and_synthesised(cases):
    config = WindowConfig(shapes=((32, 32, 32),), weights=(1.0,), synthetic=0.0)
    image, labels = WindowStream(cases, [1.0] * len(cases), config, seed=0, length=4)[2]
    assert image.shape == (1, 32, 32, 32) and labels.shape == (32, 32, 32)
    assert torch.isfinite(image).all() and image.std() > 0.05 and labels.any()


def test_at_3_mm_the_whole_trunk_is_about_150_by_100_by_140_voxels():
    canvas = paint_trunk(np.random.default_rng(8), Preprocessing())
    assert all(low < n < high for n, low, high in zip(canvas.shape, (130, 70, 100), (230, 160, 260), strict=True))
    assert set(canvas.palette.targets(ANATOMY)[canvas.tissue].ravel().tolist()) >= {s.id for s in ANATOMY} - {2, 3}
