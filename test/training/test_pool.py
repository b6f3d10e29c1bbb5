"""What windows are drawn from: phantoms get their share, and validation draws what training never does."""

from dataclasses import replace

import pytest
import torch

from threedme_ros.model.config import Preprocessing
from threedme_ros.phantom import phantom
from threedme_ros.training import pool as room
from threedme_ros.training.case import training_case
from threedme_ros.training.data import WindowStream
from threedme_ros.training.errors import TrainingError
from threedme_ros.training.pool import training_pool, validation_windows
from threedme_ros.training.tasks import Phantoms, Task
from threedme_ros.training.window_config import WindowConfig

PREPROCESSING = Preprocessing(spacing_mm=(12.0, 12.0, 12.0))


@pytest.fixture(scope="module")
def patients(anatomy):
    image, labels = phantom(anatomy=anatomy)
    case = training_case("A", image, labels, labels, PREPROCESSING)
    return [case, replace(case, name="B")]


@pytest.fixture
def task():
    windows = WindowConfig(shapes=((16, 32, 32),), weights=(1,), synthetic=0.0)
    return Task("t", "config/anatomy.yaml", {"A": 2.0, "B": 1.0}, phantoms=Phantoms(2, 0.4), windows=windows, workers=0)


def test_phantoms_share_their_part_of_the_windows_and_patients_theirs(task, patients, anatomy):
    pool = training_pool(task, patients, anatomy, PREPROCESSING)
    assert [case.real for case in pool.cases] == [True, True, False, False]
    assert pool.weights == pytest.approx((0.4, 0.2, 0.2, 0.2))


def test_the_pool_is_a_function_of_the_seed(task, patients, anatomy):
    first, again, other = (
        training_pool(replace(task, seed=seed), patients, anatomy, PREPROCESSING).cases[2].labels for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert first.shape != other.shape or not torch.equal(first, other)


def test_validation_draws_no_scan_and_no_phantom_of_training(task, patients, anatomy, monkeypatch):
    drawn = []

    class Recorded(WindowStream):
        def __init__(self, cases, *rest):
            super().__init__(cases, *rest)
            drawn.append(cases)

    monkeypatch.setattr(room, "WindowStream", Recorded)
    windows = validation_windows(task, patients, anatomy, PREPROCESSING)
    assert len(windows) == room.VALIDATION_WINDOWS
    assert not any(case.real for case in drawn[0])
    training = {case.name for case in training_pool(task, patients, anatomy, PREPROCESSING).cases[2:]}
    held = {case.name for case in drawn[0][2:]}
    assert len(held) == 2 and not held & training


def test_a_first_stage_draws_from_phantoms_alone(task, anatomy):
    first = replace(task, phantoms=Phantoms(3, 1.0), cases={})
    pool = training_pool(first, [], anatomy, PREPROCESSING)
    assert len(pool.cases) == len(pool.weights) == 3 and not any(case.real for case in pool.cases)
    assert len(set(pool.weights)) == 1
    assert len(validation_windows(first, [], anatomy, PREPROCESSING)) > 0
    with pytest.raises(TrainingError, match="cases"):
        replace(first, phantoms=Phantoms(3, 0.5))


def test_without_phantoms_validation_is_of_the_patients_own_labels(task, patients, anatomy):
    alone = replace(task, phantoms=Phantoms(), cases={"A": 1.0})
    windows = validation_windows(alone, patients[:1], anatomy, PREPROCESSING)
    shown = set(torch.stack([labels for _, labels in windows]).unique().tolist()) - {0}
    assert shown and shown <= patients[0].locations.keys()


def test_a_first_stage_draws_phantoms_alone_in_training_and_validation(task, anatomy):
    alone = replace(task, phantoms=Phantoms(3, 1.0), cases={})
    pool = training_pool(alone, [], anatomy, PREPROCESSING)
    assert len(pool.cases) == 3 and not any(case.real for case in pool.cases) and len(set(pool.weights)) == 1
    assert len(validation_windows(alone, [], anatomy, PREPROCESSING)) == room.VALIDATION_WINDOWS


@pytest.mark.parametrize(("count", "share"), [(2, 0.0), (0, 0.3), (-1, 0.0), (2, 1.1), (2.0, 0.5)])
def test_bad_phantoms_are_refused(count, share):
    with pytest.raises(TrainingError, match="phantoms"):
        Phantoms(count, share)
