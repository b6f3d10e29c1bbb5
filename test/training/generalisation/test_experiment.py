"""Train first, evaluate after, each once."""

import pytest

from threedme_ros.training.generalisation import experiment
from threedme_ros.training.generalisation.runs import RUNS, chosen


@pytest.fixture
def calls(monkeypatch):
    """Training, loading and evaluation replaced: what was asked for, in order."""
    made = []

    def train_once(run, recipe, folder, **options):
        made.append(f"train {run.name}")
        return {"checkpoint": f"hash of {run.name}"}

    def evaluate(checkpoint, robustness_on, samples, say):
        made.append(f"evaluate {checkpoint.parent.name}, robustness on {', '.join(robustness_on)}")
        return {"dice": {}}

    monkeypatch.setattr(experiment, "train_once", train_once)
    monkeypatch.setattr(experiment, "load_network", lambda path: path)
    monkeypatch.setattr(experiment, "evaluate", evaluate)
    return made


def go(names, folder, **options):
    return experiment.train_and_evaluate(chosen(names), "recipe.yaml", folder, say=lambda text: None, **options)


def test_nothing_is_evaluated_before_all_training_has_ended(calls, tmp_path):
    go(["small-20-A", "small-20-B"], tmp_path)
    assert calls == [
        "train small-20-phantoms",
        "train small-20-A",
        "train small-20-B",
        "evaluate small-20-A, robustness on B",
        "evaluate small-20-B, robustness on A",
    ]


def test_an_evaluation_is_made_once(calls, tmp_path):
    go(["small-20-A"], tmp_path)
    calls.clear()
    results = go(["small-20-A"], tmp_path)
    assert not [call for call in calls if call.startswith("evaluate")]
    assert list(results.found.values()) == [{"dice": {}}]


def test_a_first_stage_and_a_run_that_is_only_trained_are_not_evaluated(calls, tmp_path):
    assert not go(["small-20-phantoms"], tmp_path).found
    assert not go(["small-20-A"], tmp_path, evaluated=False).found
    assert not [call for call in calls if call.startswith("evaluate")]


def test_the_table_is_whole_with_every_run_and_not_before(calls, tmp_path):
    assert not experiment.is_whole(go(["small-20-A"], tmp_path))
    assert experiment.is_whole(go([run.name for run in RUNS], tmp_path))
