import pytest

from threedme_ros.share import share_path
from threedme_ros.training.errors import TrainingError
from threedme_ros.training.generalisation.runs import OURS, RUNS, chosen
from threedme_ros.training.peer_networks import PEERS
from threedme_ros.training.tasks import load_task


def test_ours_has_three_seeds_and_every_peer_one_both_on_each_patient():
    assert len(RUNS) == 2 * (3 + len(PEERS)) == len({run.name for run in RUNS})
    assert {run.seed for run in RUNS if run.model == OURS} == {20, 21, 22}


def test_runs_are_chosen_by_name():
    assert [run.name for run in chosen(["segresnet-20-B", "small-21-A"])] == ["small-21-A", "segresnet-20-B"]
    assert chosen() == RUNS
    with pytest.raises(TrainingError, match="run 'small-23-A': expected one of"):
        chosen(["small-23-A"])


def test_a_run_sees_its_patient_alone_and_all_else_is_the_recipe():
    run = chosen(["segresnet-20-B"])[0]
    recipe = load_task(share_path("config/tasks/demo_abdomen.yaml"), model="segresnet")
    task = run.task(recipe)
    assert dict(task.cases) == {"B": 1.0} and task.seed == 20
    assert task.model == "segresnet" and task.learning_rate == PEERS["segresnet"].learning_rate
    assert (task.windows, task.phantoms, task.minutes) == (recipe.windows, recipe.phantoms, recipe.minutes)


def test_a_first_stage_sees_no_patient():
    stage = chosen(["small-20-A"])[0].first
    assert stage.name == "small-20-phantoms" and stage.first is None
    assert not stage.task(load_task(share_path("config/tasks/phantoms.yaml"))).cases
