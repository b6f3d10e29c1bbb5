"""The stream of windows: reproducible, class-balanced, and closed to the evaluation patients."""

import builtins
from pathlib import Path

import pytest
import torch

from threedme_ros.model.config import Preprocessing
from threedme_ros.phantom import phantom
from threedme_ros.training.data import (
    TrainingError,
    WindowConfig,
    WindowStream,
    class_locations,
    draw_centre,
    draw_shape,
    training_case,
)
from threedme_ros.training.sample_cases import load_training_cases, source_families
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
    with pytest.raises(TrainingError, match="no foreground class"):
        class_locations(torch.zeros(2, 2, 2, dtype=torch.uint8))
