"""A task's name goes into logs, reports and file names, whichever of the three kinds of task it is."""

import pytest

from threedme_ros.share import share_path
from threedme_ros.training import pretrain_task, task_table, tasks
from threedme_ros.training.errors import TrainingError

LOADERS = {
    "btcv": task_table.load_task,
    "medmnist_organ": task_table.load_task,
    "demo_abdomen": tasks.load_task,
    "pretrain": pretrain_task.load_pretrain_task,
}


@pytest.mark.parametrize("name", ("3", "[a]", "null", '""', '"a/../../b"', '"a\\nb"', "2001-01-01", "x" * 101))
@pytest.mark.parametrize("task", LOADERS)
def test_a_name_that_is_none_is_refused(tmp_path, task, name):
    lines = share_path(f"config/tasks/{task}.yaml").read_text().splitlines()
    assert any(line.startswith("name: ") for line in lines)
    path = tmp_path / "x.yaml"
    path.write_text("\n".join(f"name: {name}" if line.startswith("name: ") else line for line in lines))
    with pytest.raises(TrainingError, match=r"x\.yaml: name .*expected 1 to 100 printable characters"):
        LOADERS[task](path)


@pytest.mark.parametrize("key", ("learning_rate", "clip_norm"))
def test_a_recipe_has_finite_numbers(tmp_path, key):
    path = tmp_path / "x.yaml"
    lines = share_path("config/tasks/btcv.yaml").read_text().splitlines()
    path.write_text("\n".join([*(line for line in lines if not line.startswith("recipe")), f"recipe: {{{key}: .inf}}"]))
    with pytest.raises(TrainingError, match=f"{key} inf: expected a positive number"):
        task_table.load_task(path)


@pytest.mark.parametrize("key", ("title", "data", "reference"))
def test_what_is_shown_is_a_text(tmp_path, key):
    path = tmp_path / "x.yaml"
    lines = share_path("config/tasks/medmnist_organ.yaml").read_text().splitlines()
    path.write_text("\n".join(f"{key}: [1]" if line.startswith(f"{key}: ") else line for line in lines))
    with pytest.raises(TrainingError, match=rf"{key} \[1\]: expected a text"):
        task_table.load_task(path)


@pytest.mark.parametrize("task", LOADERS)
@pytest.mark.parametrize("value", (".inf", "[.inf]", "2001-99-99", "&a [*a]", "!!python/name:os.system"))
def test_odd_values_are_refused_whatever_they_raise_inside(tmp_path, task, value):
    path = tmp_path / "x.yaml"
    text = share_path(f"config/tasks/{task}.yaml").read_text()
    path.write_text(f"{text}\nrecipe: {value}\n")
    with pytest.raises(TrainingError, match=r"x\.yaml: "):
        LOADERS[task](path)
