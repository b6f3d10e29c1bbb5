import json

import pytest

from threedme_ros.training.errors import TrainingError
from threedme_ros.training.experiments.records import Records


def test_a_finished_run_is_read_and_not_run_again(tmp_path):
    records, calls = Records(tmp_path / "out"), []

    def work():
        calls.append(1)
        return {"dice": 0.5}

    assert records.once("full-seed0", {"steps": 3, "shape": (1, 2)}, work) == {"dice": 0.5}
    assert records.once("full-seed0", {"steps": 3, "shape": (1, 2)}, work) == {"dice": 0.5}
    assert calls == [1]
    record = json.loads((tmp_path / "out" / "full-seed0.json").read_text())
    assert record["recipe"] == {"steps": 3, "shape": [1, 2]}


def test_a_run_with_another_recipe_is_named(tmp_path):
    Records(tmp_path).once("run", {"steps": 3, "seed": 1}, lambda: {"dice": 0.5})
    with pytest.raises(TrainingError, match=r"run\.json: a run with another steps; name a new output folder"):
        Records(tmp_path).once("run", {"steps": 4, "seed": 1}, lambda: {"dice": 0.6})


def test_a_run_that_fails_leaves_no_record(tmp_path):
    with pytest.raises(ValueError):
        Records(tmp_path).once("run", {}, lambda: {"dice": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_record_is_named(tmp_path):
    for text in (
        "{",
        "[]",
        "{}",
        '{"recipe": [], "result": {}}',
        '{"recipe": {}, "result": [["dice", 1]]}',
        "[" * 5000,
    ):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(TrainingError, match=r"run\.json: not a record of a run"):
            Records(tmp_path).once("run", {}, dict)


def test_a_record_of_400_megabytes_is_not_read_whole(tmp_path):
    with (tmp_path / "run.json").open("wb") as file:
        file.truncate(400 << 20)
    with pytest.raises(TrainingError, match="more than 16777216 bytes"):
        Records(tmp_path).once("run", {}, dict)
