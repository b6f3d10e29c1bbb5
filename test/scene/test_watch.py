import pytest

from threedme_ros.scene.watch import Watch


def test_a_volume_is_judged_by_what_perception_says_after_it():
    watch = Watch("/perception")
    watch.heard(1.0, well=True, message="active")
    assert watch.verdict(1.5, arrived_s=1.2) is None  # said before the volume came
    watch.heard(1.6, well=True, message="active")
    assert watch.verdict(1.7, arrived_s=1.2) == ""
    watch.heard(2.0, well=False, message="out of scope")
    assert watch.verdict(2.1, arrived_s=1.8) == "/perception: out of scope"


def test_a_silent_perception_vouches_for_nothing():
    watch = Watch("/perception")
    assert watch.verdict(12.0, arrived_s=10.0) is None
    assert watch.verdict(13.0, arrived_s=10.0) == "/perception: no diagnostics yet"
    watch.heard(9.0, well=True, message="active")
    assert watch.verdict(13.0, arrived_s=10.0) == "/perception: no diagnostics for 4 s"
    assert watch.doubts(13.0) == ["/perception: no diagnostics for 4 s"]


def test_a_lost_source_is_a_doubt():
    watch = Watch("/perception")
    watch.heard(1.0, well=True, message="active", sources="1")
    assert watch.doubts(1.5) == []
    watch.heard(2.0, well=False, message="stale", sources="0")
    assert watch.doubts(2.5) == ["/perception: stale", "/perception: no volume source connected"]


@pytest.mark.parametrize("sources", ["", "one", "1.0", "9" * 5000])
def test_a_count_that_is_no_number_is_a_doubt_and_never_an_error(sources):
    watch = Watch("/perception")
    watch.heard(1.0, well=True, message="active", sources=sources)
    (doubt,) = watch.doubts(1.5)
    assert doubt.startswith("/perception: volume_sources '") and doubt.endswith("': expected a number")
    assert watch.verdict(1.5, arrived_s=0.5) == doubt
    watch.heard(2.0, well=True, message="active", sources="1")
    assert watch.doubts(2.5) == []


def test_what_perception_complains_of_itself_comes_before_its_odd_count():
    watch = Watch("/perception")
    watch.heard(1.0, well=False, message="out of scope", sources="")
    assert watch.doubts(1.5) == ["/perception: out of scope"]
