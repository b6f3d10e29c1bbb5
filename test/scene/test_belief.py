"""The fail-closed rules, over a time that the test makes up."""

from dataclasses import replace

import pytest

from threedme_ros.geometry.plausibility import Extent
from threedme_ros.scene.belief import Belief, Look, Rules, Seen

RULES = Rules(stale_after_s=10.0, growth_mm_per_s=0.1, growth_limit_mm=2.0, growth_step_mm=0.5, gone_after=3)
KIDNEY = Seen(Extent(150.0, (60.0, -50.0, 10.0)), 0.9, shape=1)
AORTA = Seen(Extent(80.0, (-10.0, -20.0, 0.0)), 0.9, shape=2)


def look(key, alarm="", frame_id="patient", midline_mm=0.0, **seen):
    return Look(key, frame_id, {"kidney": KIDNEY, "aorta": AORTA, **seen}, midline_mm, alarm)


def without(name, key="later"):
    whole = look(key)
    return replace(whole, seen={n: s for n, s in whole.seen.items() if n != name})


@pytest.fixture
def belief():
    """Both structures confirmed at 0 s, in look "first"."""
    belief = Belief(RULES)
    belief.observe(0.0, look("first"))
    return belief


def test_nothing_seen_is_nothing_wanted():
    assert Belief(RULES).wanted(100.0) == {}
    assert not Belief(RULES).accept(100.0)


def test_a_good_look_is_wanted_as_it_is(belief):
    wanted = belief.wanted(10.0)
    assert set(wanted) == {"kidney", "aorta"}
    assert (wanted["kidney"].key, wanted["kidney"].shape, wanted["kidney"].extra_mm) == ("first", 1, 0.0)
    assert belief.doubts(10.0) == []


def test_without_a_new_look_everything_grows_by_the_rate_to_the_limit(belief):
    grown = [belief.wanted(at_s)["aorta"].extra_mm for at_s in (10.0, 10.1, 15.0, 15.1, 24.0, 30.0, 1e6)]
    assert grown == [0.0, 0.5, 0.5, 1.0, 1.5, 2.0, 2.0]
    assert belief.doubts(24.0) == ["not confirmed for 24 s, growing: all structures"]
    assert not belief.at_limit(24.0)
    assert belief.at_limit(30.0)


def test_growth_never_lags_behind_the_rate(belief):
    for tenth in range(300):
        now_s = 10 + tenth / 10
        assert belief.wanted(now_s)["aorta"].extra_mm >= min(0.1 * (now_s - 10), 2.0) - 1e-9


def test_a_new_good_look_ends_the_growth(belief):
    belief.observe(25.0, look("second", kidney=replace(KIDNEY, shape=7)))
    wanted = belief.wanted(25.0)["kidney"]
    assert (wanted.key, wanted.shape, wanted.extra_mm) == ("second", 7, 0.0)


def test_an_alarm_keeps_the_last_anatomy_and_its_age(belief):
    bad = look("bad", alarm="out of scope", kidney=replace(KIDNEY, shape=7))
    for at_s in range(1, 20):
        belief.observe(float(at_s), bad)
    wanted = belief.wanted(20.0)
    assert {(w.key, w.extra_mm) for w in wanted.values()} == {("first", 1.0)}
    assert belief.doubts(20.0)[0] == "out of scope"


def test_an_empty_look_with_an_alarm_removes_nothing(belief):
    for at_s in range(10):
        belief.observe(float(at_s), Look("empty", "patient", {}, alarm="refused"))
    assert set(belief.wanted(10.0)) == {"kidney", "aorta"}
    assert belief.released == set()


def test_low_confidence_keeps_the_last_shape_of_that_structure_only(belief):
    belief.observe(12.0, look("second", kidney=replace(KIDNEY, confidence=0.3, shape=7)))
    wanted = belief.wanted(12.0)
    assert (wanted["kidney"].key, wanted["kidney"].extra_mm) == ("first", 0.5)
    assert (wanted["aorta"].key, wanted["aorta"].extra_mm) == ("second", 0.0)
    assert belief.doubts(12.0)[0] == "kidney: confidence 0.30, below 0.50"


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (replace(KIDNEY, extent=Extent(310.0, (60.0, -50.0, 10.0))), "grew from 150 to 310 ml"),
        (replace(KIDNEY, extent=Extent(150.0, (-60.0, -50.0, 10.0))), "jumped sides, from right to left"),
    ],
)
def test_an_implausible_change_keeps_the_old_one_and_says_so(belief, now, reason):
    for at_s in range(1, 30):
        belief.observe(float(at_s), look("second", kidney=now))
    assert belief.wanted(29.0)["kidney"].key == "first"
    assert belief.wanted(29.0)["kidney"].extra_mm == 2.0
    assert belief.doubts(29.0)[0] == f"kidney: {reason}; the old one is kept"
    belief.observe(30.0, look("third"))
    assert belief.wanted(30.0)["kidney"].extra_mm == 0.0
    assert belief.doubts(30.0) == []


def test_gone_once_is_kept_gone_in_several_good_looks_is_released(belief):
    for count in (1, 2):
        belief.observe(float(count), without("kidney"))
        assert belief.wanted(2.0)["kidney"].key == "first"
        assert belief.doubts(2.0) == [f"kidney: gone in {count} of 3 volumes; kept"]
    belief.observe(3.0, without("kidney"))
    assert set(belief.wanted(3.0)) == {"aorta"}
    assert belief.released == {"kidney"}
    belief.observe(4.0, look("back"))
    assert set(belief.wanted(4.0)) == {"kidney", "aorta"}
    assert belief.released == set()


def test_only_good_looks_in_a_row_count_as_gone(belief):
    belief.observe(1.0, without("kidney"))
    belief.observe(2.0, without("kidney"))
    belief.observe(3.0, replace(without("kidney"), alarm="out of scope"))
    assert "kidney" in belief.wanted(3.0)
    belief.observe(4.0, look("again"))
    belief.observe(5.0, without("kidney"))
    assert belief.doubts(5.0) == ["kidney: gone in 1 of 3 volumes; kept"]


def test_a_first_sight_in_doubt_is_an_obstacle_that_grows_at_once():
    belief = Belief(RULES)
    belief.observe(100.0, look("first", alarm="out of scope"))
    assert belief.wanted(100.0)["aorta"].extra_mm == 0.0
    assert belief.wanted(105.0)["aorta"].extra_mm == 0.5


def test_another_frame_is_refused_until_an_operator_accepts_it(belief):
    belief.observe(1.0, look("other", frame_id="other", liver=replace(AORTA, shape=5)))
    assert belief.doubts(1.0) == ["frame changed from 'patient' to 'other'"]
    assert {w.frame_id for w in belief.wanted(1.0).values()} == {"patient"}
    assert belief.accept(2.0)
    assert {w.frame_id for w in belief.wanted(2.0).values()} == {"other"}
    assert set(belief.wanted(2.0)) == {"kidney", "aorta", "liver"}
    assert belief.doubts(2.0) == []


def test_accepting_releases_what_the_last_look_does_not_show(belief):
    belief.observe(1.0, replace(without("kidney"), alarm="out of scope"))
    assert belief.accept(1.0)
    assert (set(belief.wanted(1.0)), belief.released) == ({"aorta"}, {"kidney"})


def test_what_an_earlier_run_left_stays_until_good_looks_show_it_gone(belief):
    belief.found(["kidney", "tumour"])
    for count in range(3):
        assert belief.released == set()
        belief.observe(1.0 + count, look("more"))
    assert belief.released == {"tumour"}
