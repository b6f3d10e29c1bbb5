"""The stream of windows: reproducible, class-balanced, and closed to the evaluation patients."""

import builtins
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from threedme_ros.model.config import Preprocessing
from threedme_ros.phantom import phantom
from threedme_ros.training.augment import PADDING, WarpConfig
from threedme_ros.training.case import TrainingCase, class_locations, training_case
from threedme_ros.training.data import WindowStream, draw_window
from threedme_ros.training.errors import TrainingError
from threedme_ros.training.sample_cases import load_training_cases, source_families
from threedme_ros.training.substances import Substance
from threedme_ros.training.synthesis import SynthesisConfig
from threedme_ros.training.tissues import Tissues
from threedme_ros.training.window_config import WindowConfig
from threedme_ros.training.window_geometry import draw_centre, draw_organs, draw_shape
from threedme_ros.volume_io import read_volume


@pytest.fixture(scope="module")
def case(anatomy):
    image, labels = phantom(anatomy=anatomy)
    return training_case("phantom", image, labels, labels, Preprocessing(spacing_mm=(6.0, 6.0, 6.0)))


@pytest.fixture(scope="module")
def config():
    return WindowConfig(shapes=((32, 32, 32), (16, 48, 48)), weights=(0.5, 0.5))


def test_case_labels_come_from_its_tissues(case):
    assert torch.equal(case.tissues.target[case.tissue.int()], case.labels)
    assert case.image.min() >= -1 and case.image.max() <= 1


def test_right_kidney_lies_right_of_the_left_one(case, anatomy):
    right, left = (case.locations[anatomy[n].id][:, 2].float().mean() for n in ("kidney_right", "kidney_left"))
    assert right > left  # W grows to the patient's right


def test_right_stays_right_in_every_window(case, anatomy):
    whole = tuple(-(-n // 16) * 16 for n in case.image.shape)
    stream = WindowStream([case], [1.0], WindowConfig(shapes=(whole,), weights=(1.0,)), 1, 12)
    seen = 0
    for _, labels in (stream[i] for i in range(len(stream))):
        where = [(labels == anatomy[n].id).nonzero()[:, 2].float() for n in ("kidney_right", "kidney_left")]
        if min(map(len, where)) > 20:
            assert where[0].mean() > where[1].mean()
            seen += 1
    assert seen >= 3


def test_same_seed_same_window_other_seed_another(case, config):
    first, again, other = (WindowStream([case], [1.0], config, seed, 10)[3] for seed in (5, 5, 6))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert first[0].shape != other[0].shape or not torch.equal(first[0], other[0])


def test_window_has_shape_range_and_known_labels(case, config):
    stream = WindowStream([case], [1.0], config, 0, 8)
    for image, labels in (stream[i] for i in range(len(stream))):
        assert image.shape[1:] == labels.shape and tuple(labels.shape) in config.shapes
        assert image.min() >= -1 and image.max() <= 1
        assert set(labels.unique().tolist()) <= {0, *case.locations}


PLAIN = WindowConfig(
    shapes=((32, 32, 32),), weights=(1.0,), synthetic=0.0, field_of_view=0.0, slab=0.0, organs=0.0, arms=0.0,
    warp=WarpConfig(share=0.0), synthesis=SynthesisConfig(recontrast=0.0, acquisition=0.0, artefacts=0.0, patches=0.0),
)  # fmt: skip


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_with_everything_switched_off_a_window_is_a_piece_of_the_scan(case):
    still = replace(case, locations={1: torch.tensor([[20, 20, 20]])})
    # a whole number of voxels from the corner, so that nothing is interpolated
    exact = replace(PLAIN, shapes=((16, 16, 16),))
    hits = 0
    for seed in range(6):
        image, labels = draw_window(still, (16, 16, 16), exact, seeded(seed))
        best = min(
            float((image[1:-1, 1:-1, 1:-1] - case.image[d : d + 14, h : h + 14, w : w + 14]).abs().mean())
            for d in range(5, 22) for h in range(5, 22) for w in range(5, 22)
            if max(d, h, w) + 14 <= min(case.image.shape)
        )  # fmt: skip
        hits += best < 0.12  # half a voxel away at most
        assert set(labels.unique().tolist()) <= set(case.labels.unique().tolist())
    assert hits == 6


def ball_case(real=True, depth=48):
    """Soft tissue with a bright ball of class 1, off the middle of every axis."""
    shape = (depth, 60, 64)
    axes = torch.meshgrid(*[torch.arange(float(n)) for n in shape], indexing="ij")
    middle = (depth * 0.45, 25.0, 38.0)
    ball = sum((a - c) ** 2 for a, c in zip(axes, middle, strict=True)) < 8**2
    tissue = torch.where(ball, 3, 2).to(torch.uint8)
    tissues = Tissues(
        torch.tensor([0, 0, 0, 1], dtype=torch.uint8), torch.tensor([0, 0, 1, 2]), torch.zeros(4, dtype=torch.long),
        torch.tensor([True, True, False, False]), torch.tensor([-1.0, -1.0, -0.2, 0.6]), torch.full((4,), 0.02),
        torch.tensor([int(s) for s in (Substance.GAS, Substance.GAS, Substance.MUSCLE, Substance.LIVER)]),
    )  # fmt: skip
    labels = ball.to(torch.uint8)
    image = torch.where(ball, 0.6, -0.2) if real else torch.full(shape, torch.nan)
    return TrainingCase("ball", image, tissue, labels, tissues, class_locations(labels), real)


STRONG = WarpConfig(30, (0.75, 1.3), 6.0, 32, 3, 1.0)
BENT = replace(PLAIN, organs=1.0, warp=STRONG, slab=1.0, field_of_view=0.5, slab_voxels=(9, 26))


def test_the_image_of_a_ball_is_where_its_label_is_however_it_is_bent():
    case, volumes = ball_case(), []
    for seed in range(30):
        image, labels = draw_window(case, (48, 48, 48), BENT, seeded(seed))
        inside = labels == 1
        volumes.append(int(inside.sum()))
        assert ((image > 0.2) == inside).float().mean() > 0.985
        assert image[inside].mean() > 0.5
    assert max(volumes) > 1.5 * sorted(volumes)[15] > 0


def test_beyond_a_slab_there_is_exactly_padding_and_no_label():
    case, seen = ball_case(), set()
    for seed in range(30):
        image, labels = draw_window(case, (32, 48, 48), BENT, seeded(seed))
        slices = (image != PADDING).flatten(1).any(1)
        where = slices.nonzero().flatten()
        seen.add(len(where))
        assert slices[where[0] : where[-1] + 1].all()  # one slab
        assert labels[~slices].eq(0).all() and image[~slices].eq(-1).all()
    assert min(seen) >= 9 and max(seen) <= 26 and len(seen) > 5


def test_a_thin_scan_stays_a_slab_along_the_axes_when_it_is_turned():
    case = ball_case(depth=13)
    for seed in range(12):
        image, _ = draw_window(case, (16, 48, 48), replace(BENT, slab=0.0, field_of_view=0.0), seeded(seed))
        slices = (image != PADDING).flatten(1).float().mean(1)
        assert ((slices < 0.02) | (slices > 0.9)).all()
        assert 9 <= (slices > 0.9).sum() <= 16


def test_a_case_without_a_scan_is_always_synthesised():
    case = ball_case(real=False)  # its image is not a number anywhere
    for seed in range(10):
        image, labels = draw_window(case, (32, 48, 48), replace(WindowConfig(), synthetic=0.0, arms=1.0), seeded(seed))
        assert torch.isfinite(image).all() and image.min() >= -1 and image.max() <= 1 and labels.any()


def test_organs_change_within_the_bounds_asked():
    case = ball_case()
    centre, half_extent = case.organs[1]
    torch.testing.assert_close(centre, torch.tensor([21.6, 25.0, 38.0]), atol=0.3, rtol=0)
    torch.testing.assert_close(half_extent, torch.full((3,), 8.0), atol=0.4, rtol=0)
    config = replace(PLAIN, organ_scale=(0.8, 1.1), organ_shift_voxels=3.0)
    changes = [change for seed in range(40) for change in draw_organs(case, config, seeded(seed))]
    assert 40 < len(changes) < 120
    assert 0.8 <= min(c.factor for c in changes) < 0.85 and 1.05 < max(c.factor for c in changes) <= 1.1
    assert 2 < max(c.shift.abs().max().item() for c in changes) <= 3


def test_windows_are_drawn_around_every_class_alike():
    # class 1 fills a corner of 1000 voxels, class 2 is a single voxel: each is the target half of the time
    labels = torch.zeros(60, 60, 60, dtype=torch.uint8)
    labels[:10, :10, :10] = 1
    labels[50, 50, 50] = 2
    case = type("Case", (), {"locations": class_locations(labels), "image": labels})()
    generator = torch.Generator().manual_seed(0)
    centres = [draw_centre(case, (16, 16, 16), generator) for _ in range(200)]
    near_two = sum(min(c) > 30 for c in centres)
    assert 70 < near_two < 130
    for centre in centres:
        assert all(7.5 <= c <= 51.5 for c in centre)  # the window stays inside the scan
        if min(centre) > 30:
            assert all(abs(c - 50) <= 8 for c in centre)  # and holds the voxel


def test_thin_scan_gets_a_flat_window(config):
    case = type("Case", (), {"image": torch.zeros(13, 60, 60)})()
    generator = torch.Generator().manual_seed(0)
    assert {draw_shape(case, config, generator) for _ in range(20)} == {(16, 48, 48)}


@pytest.mark.parametrize("key", ["C", "D"])
def test_evaluation_patient_is_refused_before_any_file_is_opened(key, samples, anatomy, monkeypatch):
    def closed(*args, **kwargs):
        raise AssertionError(f"opened {args}")

    monkeypatch.setattr("threedme_ros.samples.read_volume", closed)
    with pytest.raises(TrainingError, match="evaluation only: expected a training case"):
        load_training_cases(["A", key], anatomy, Preprocessing(), samples)


def test_training_opens_no_file_of_an_evaluation_patient(samples, anatomy, monkeypatch):
    opened: list[str] = []
    for module, name in ((builtins, "open"), (Path, "open")):
        original = getattr(module, name)

        def spy(file, *args, original=original, **kwargs):
            opened.append(str(file))
            return original(file, *args, **kwargs)

        monkeypatch.setattr(module, name, spy)

    def reading(path):
        opened.append(str(path))
        return read_volume(path)

    monkeypatch.setattr("threedme_ros.samples.read_volume", reading)
    load_training_cases(["A"], anatomy, Preprocessing(), samples)
    assert any("example_ct.nii.gz" in path for path in opened)
    assert not [p for p in opened if "aorta_report" in p or "pulmonary_report" in p or "_mr" in p]


def test_both_kidneys_and_all_ribs_are_one_family_each(anatomy):
    families = source_families()
    assert families[2] != families[3]
    assert len({families[i] for i in range(92, 116)}) == 1


def test_bad_configuration_is_named():
    with pytest.raises(TrainingError, match=r"window shape \(16, 16, 20\): expected three multiples of 16"):
        WindowConfig(shapes=((16, 16, 20),), weights=(1,))
    with pytest.raises(TrainingError, match=r"synthetic 1\.5: expected a share from 0 to 1"):
        WindowConfig(synthetic=1.5)
    with pytest.raises(TrainingError, match=r"slab_voxels \(9, 4\): expected"):
        WindowConfig(slab_voxels=(9, 4))
    with pytest.raises(TrainingError, match=r"organ_scale \(0\.1, 1\.0\): expected"):
        WindowConfig(organ_scale=(0.1, 1.0))
    with pytest.raises(TrainingError, match="organ_shift_voxels -1: expected"):
        WindowConfig(organ_shift_voxels=-1)
    with pytest.raises(ValueError, match=r"contrasts \(1\.0, 0\.0\): expected three weights, for ct, mr, free"):
        SynthesisConfig(contrasts=(1, 0))
    with pytest.raises(ValueError, match="coarsest_voxels 0\\.5: expected"):
        SynthesisConfig(coarsest_voxels=0.5)
    with pytest.raises(TrainingError, match="no foreground class"):
        class_locations(torch.zeros(2, 2, 2, dtype=torch.uint8))
