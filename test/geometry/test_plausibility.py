import pytest

from threedme_ros.geometry.plausibility import Extent, implausible_change

KIDNEY = Extent(150.0, (60.0, -50.0, 10.0))


@pytest.mark.parametrize(
    ("now", "midline_mm", "reason"),
    [
        (None, None, "vanished (150 ml before)"),
        (Extent(300.0, KIDNEY.centre_mm), None, "grew from 150 to 300 ml"),
        (Extent(75.0, KIDNEY.centre_mm), None, "shrank from 150 to 75 ml"),
        (Extent(150.0, (-62.0, -50.0, 12.0)), 2.0, "jumped sides, from right to left"),
        (Extent(150.0, (-30.0, -50.0, 10.0)), None, "moved by 90 mm"),
        (Extent(290.0, (60.0, -48.0, 35.0)), 0.0, ""),  # a deep breath and a resection at once
        (Extent(80.0, (60.0, -50.0, 10.0)), 0.0, ""),
    ],
)
def test_what_a_body_does_not_do_is_named(now, midline_mm, reason):
    assert implausible_change(KIDNEY, now, midline_mm=midline_mm) == reason


def test_a_structure_on_the_midline_may_wander_across_it():
    before, now = Extent(50.0, (-8.0, 0.0, 0.0)), Extent(50.0, (9.0, 0.0, 0.0))
    assert implausible_change(before, now, midline_mm=0.0) == ""


def test_a_large_structure_may_move_farther_than_a_small_one():
    before, now = Extent(1500.0, (0.0, 0.0, 0.0)), Extent(1500.0, (0.0, 0.0, 60.0))
    assert before.size_mm == pytest.approx(142, abs=1)
    assert implausible_change(before, now) == ""
