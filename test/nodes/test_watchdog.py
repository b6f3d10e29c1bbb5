import threading
import time

import pytest

from threedme_ros.nodes.watchdog import Durations, HangError, LeftBehind, Limits, Watch, within

LIMITS = Limits(hang_after_s=30.0, build_timeout_s=600.0)


@pytest.fixture
def watch(clock):
    return Watch(LIMITS, Durations(), clock)


def durations(*pairs) -> Durations:
    known = Durations()
    for seconds, size in pairs:
        known.learn(seconds, size)
    return known


@pytest.mark.parametrize(
    ("known", "size", "limit_s"),
    [
        ((), 1000, 30.0),  # nothing measured yet
        (((1.0, 1000),), 1000, 30.0),
        (((4.0, 1000),), 1000, 40.0),  # 10 times what it took
        (((4.0, 1000),), 500, 40.0),
        (((4.0, 1000),), 3000, 120.0),  # three times larger than any before
        (((4.0, 1000), (4.0, 4000)), 3000, 40.0),
        (((4.0, 10),), 10**6, 400.0),  # so much larger says little: ten times as long at most
        (((100.0, 1000),), 1000, 600.0),  # never longer than a build
        (((0.5, 1000),) * 38 + ((20.0, 1000),) + ((0.5, 1000),) * 19, 1000, 200.0),  # a full pass among updates
        (((20.0, 1000),) + ((0.5, 1000),) * 200, 1000, 30.0),  # that was long ago
    ],
)
def test_limit_is_learned(known, size, limit_s):
    assert durations(*known).limit_s(LIMITS, size) == pytest.approx(limit_s)


def test_warm_up_counts_while_few_are_measured():
    known = Durations()
    known.warmed_up(5.0, 3000)
    assert known.limit_s(LIMITS, 3000) == 50.0
    assert known.limit_s(LIMITS, 9000) == 150.0  # the first volume may be larger
    for _ in range(4):
        known.learn(0.1, 1000)
    assert known.limit_s(LIMITS, 1000) == 50.0
    known.learn(0.1, 1000)
    assert known.limit_s(LIMITS, 1000) == 30.0


def test_zero_gives_nothing_up(clock):
    watch = Watch(Limits(0.0, 600.0), Durations(), clock)
    watch.begin("volume")
    clock.now_s += 1e9
    assert watch.overdue(False) == watch.overdue(True) == ""


def test_job_is_overdue_past_its_limit(watch, clock):
    assert (watch.overdue(False), watch.describe()) == ("", "idle")
    watch.begin("volume")
    clock.now_s += 29.0
    assert (watch.overdue(False), watch.describe()) == ("", "volume for 29.0 s of at most 30")
    clock.now_s += 2.0
    assert watch.overdue(False) == "no result for 30 s"
    assert watch.give_up()
    assert (watch.overdue(False), watch.describe(), watch.running) == ("", "stuck", False)


def test_building_has_a_limit_of_its_own_and_the_job_starts_over_after_it(watch, clock):
    watch.begin("volume")
    clock.now_s += 20.0
    assert watch.overdue(True) == ""
    clock.now_s += 599.0
    assert watch.overdue(True) == ""
    assert watch.overdue(False) == ""
    clock.now_s += 29.0
    assert watch.overdue(False) == ""
    clock.now_s += 2.0
    assert watch.overdue(False) == "no result for 30 s"
    assert watch.overdue(True) == ""
    clock.now_s += 601.0
    assert watch.overdue(True) == "building for 600 s"


def test_a_job_that_was_given_up_goes_no_further(watch):
    watch.begin("volume")
    watch.enter("network")
    assert watch.stage == "network"
    watch.give_up()
    with pytest.raises(HangError, match="surfaces: given up before"):
        watch.enter("surfaces")
    assert watch.stage == "network"


def test_an_outcome_belongs_to_one_side_only(watch):
    assert not watch.give_up()
    watch.begin("volume")
    assert watch.end()
    assert not watch.give_up()
    watch.begin("volume")
    assert watch.give_up()
    assert not watch.give_up()
    assert not watch.end()


def test_what_built_is_no_measure_of_what_a_volume_takes(clock):
    known = Durations()
    watch = Watch(LIMITS, known, clock)
    watch.begin("volume")
    watch.enter("network", 1000)
    clock.now_s += 20.0
    watch.overdue(True)
    assert watch.end()
    watch.begin("clouds")
    clock.now_s += 20.0
    assert watch.end()
    assert known.limit_s(LIMITS, 1000) == 30.0
    watch.begin("volume")
    watch.enter("decoding")
    watch.enter("network", 1000)
    clock.now_s += 20.0
    watch.enter("surfaces")
    assert watch.end()
    assert known.limit_s(LIMITS, 1000) == 200.0


def test_the_limit_grows_once_a_job_is_known_to_be_large(clock):
    watch = Watch(LIMITS, durations((4.0, 1000)), clock)
    watch.begin("volume")
    assert watch.describe() == "volume for 0.0 s of at most 40"
    watch.enter("network", 5000)
    assert watch.describe() == "volume for 0.0 s of at most 200"
    watch.enter("surfaces")
    assert watch.describe() == "volume for 0.0 s of at most 200"


def test_within_hands_on_results_and_errors():
    left_behind = LeftBehind()
    assert within(10.0, lambda: 7, "seven", left_behind) == 7
    with pytest.raises(ZeroDivisionError):
        within(10.0, lambda: 1 / 0, "nothing", left_behind)
    assert left_behind.count == 0


@pytest.mark.parametrize(("alive", "error"), [(True, HangError), (False, InterruptedError)])
def test_within_leaves_behind_what_does_not_return(alive, error):
    release, left_behind = threading.Event(), LeftBehind()
    with pytest.raises(error, match="sleeper: "):
        within(0.2, release.wait, "sleeper", left_behind, lambda: alive)
    assert left_behind.count == 1
    release.set()
    end = time.monotonic() + 10
    while left_behind.count:
        assert time.monotonic() < end
        time.sleep(0.01)
