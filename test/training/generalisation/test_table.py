import copy

import pytest

from threedme_ros.training.generalisation.figures import Results
from threedme_ros.training.generalisation.runs import FIRST, Run
from threedme_ros.training.generalisation.table import structures, summary, trainings

TRAINED = {
    "parameters_m": 3.71, "step": 900, "minutes": 10.0, "wall_minutes": 14.2, "data_share": 0.02, "loss": 0.9,
    "synthetic_dice": 0.4,
}  # fmt: skip


@pytest.fixture
def results(found) -> Results:
    better = copy.deepcopy(found)
    better["dice"]["A"]["liver"] = 1.0
    every = {Run("small", seed, patient): [found, better][seed - 20] for seed in (20, 21) for patient in "AB"}
    every[Run("dynunet", 20, "A")] = found  # its other direction is still to come
    return Results({Run("small", 20, FIRST): TRAINED} | dict.fromkeys(every, TRAINED), every)


def test_a_row_is_the_mean_over_directions_with_the_range_over_seeds(results, found):
    lines = summary(results, found | {"parameters_m": 3.71}).splitlines()
    ours, shipped = (line.split(" | ") for line in lines[2:])
    assert ours[0] == "| 3DME small" and ours[1] == "3.7"
    assert ours[2] == "0.475 (0.450 to 0.500)"  # (0.6 + 0.3) / 2, and (0.7 + 0.3) / 2
    assert ours[5] == "0.100"
    assert shipped[0].startswith("| 3DME small, as shipped") and shipped[3] == shipped[4] == "-"


def test_every_structure_of_every_truth_is_listed_with_whether_the_training_patient_shows_it(results):
    text = structures(results, None)
    part = text.split("### ")[1].splitlines()
    assert part[0] == "Trained on A, tried on B"
    assert "| spleen | no | 0.000 | 0.000 |" in part and "| liver | yes | 0.600 | 0.600 |" in part
    assert "| **mean** |  | 0.300 | 0.300 |" in part
    assert [line for line in text.splitlines() if line.startswith("###")][1:4] == [
        "### Trained on A, tried on the MR slab D",
        "### Trained on A, tried on the thorax CT C",
        "### Trained on A, tried on A itself",
    ]


def test_every_training_is_listed_first_stages_too(results):
    lines = trainings(results).splitlines()
    assert lines[2] == "| small-20-phantoms | 900 | 10.0 | 14.2 | 2% | 0.900 | 0.400 |"
    assert len(lines) == 2 + 6
