"""The means of a row, worked out by hand: nothing is left out because it is bad."""

import pytest

from threedme_ros.training.generalisation.figures import mean_of, of_run, of_shipped, shown
from threedme_ros.training.generalisation.runs import Run


def test_a_run_is_tried_on_the_other_patient_and_a_missed_structure_counts_nought(found):
    figures = of_run(Run("small", 20, "A"), found)
    assert figures.own == pytest.approx(0.6)
    assert figures.unseen == pytest.approx(0.3)
    assert figures.unseen_shown == pytest.approx(0.45)  # A shows no spleen
    assert (figures.mr, figures.aorta, figures.robustness, figures.seconds) == (pytest.approx(0.1), 0.5, 0.25, 1.5)
    assert figures.both == pytest.approx(0.2)


def test_the_other_direction(found):
    run = Run("small", 20, "B")
    figures = of_run(run, found)
    assert shown(run, found) == ["liver", "colon"]
    assert (figures.own, figures.unseen, figures.robustness) == (pytest.approx(0.3), pytest.approx(0.6), 0.35)


def test_the_mean_of_both_directions_is_field_by_field(found):
    mean = mean_of([of_run(Run("small", 20, patient), found) for patient in "AB"])
    assert mean.unseen == pytest.approx(0.45) and mean.robustness == pytest.approx(0.3)


def test_the_shipped_checkpoint_leaves_no_patient_out(found):
    figures = of_shipped(found)
    assert figures.unseen is figures.unseen_shown is figures.both is None
    assert figures.own == pytest.approx((0.6 + 0.3) / 2) and figures.robustness == pytest.approx(0.3)
