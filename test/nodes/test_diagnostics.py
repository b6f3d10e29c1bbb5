import pytest

pytest.importorskip("rclpy")
from diagnostic_msgs.msg import DiagnosticStatus

from threedme_ros.inference.scope import Scope
from threedme_ros.nodes.diagnostics import Health

ENGINE = {"engine": "torch", "precision": "fp32", "device": "cpu", "checkpoint": "0123456789abcdef"}


@pytest.fixture
def health(clock):
    return Health(clock)


def status(health, stale_after_s=0.0):
    message = health.status("/perception", "active", stale_after_s, ENGINE)
    return message, {pair.key: pair.value for pair in message.values}


def test_before_the_first_volume_there_is_no_anatomy(health):
    message, values = status(health)
    assert message.level == DiagnosticStatus.OK
    assert (values["anatomy"], values["age_of_last_result_s"], values["state"]) == ("none", "", "active")
    assert (values["source"], values["stamps_reversed"]) == ("off", "0")
    assert {key: values[key] for key in ENGINE} == ENGINE


def test_latency_percentiles_and_age(health, clock):
    for milliseconds in range(1, 102):  # p50 = 51, p95 = 96
        health.segmented(milliseconds / 1000)
    clock.now_s += 2.5
    _, values = status(health)
    assert (values["stamp_to_publish_p50_ms"], values["stamp_to_publish_p95_ms"]) == ("51.0", "96.0")
    assert (values["age_of_last_result_s"], values["volumes_segmented"]) == ("2.500", "101")


def test_the_scope_of_the_last_volume_is_shown_and_a_volume_out_of_scope_is_a_warning(health):
    assert (status(health)[1]["scope_score"], status(health)[1]["scope_threshold"]) == ("", "")
    head = Scope(-2.34, -0.3)
    health.segmented(1.0, head.warnings, scope=head)
    message, values = status(health)
    assert (values["scope_score"], values["scope_threshold"]) == ("-2.34", "-0.30")
    assert message.level == DiagnosticStatus.WARN and "out of scope" in message.message
    health.segmented(1.0, scope=Scope(4.0, -0.3))
    assert status(health)[0].level == DiagnosticStatus.OK and status(health)[1]["scope_score"] == "4.00"


def test_a_negative_latency_is_none(health):
    health.segmented(-3.0)
    _, values = status(health)
    assert (values["stamp_to_publish_last_ms"], values["volumes_segmented"]) == ("", "1")
    health.segmented(0.25)
    assert status(health)[1]["stamp_to_publish_last_ms"] == "250.0"


def test_refused_volume_makes_the_anatomy_stale_until_the_next_good_one(health):
    health.segmented(1.0)
    health.refused("format 'jpeg': expected nifti")
    message, values = status(health)
    assert message.level == DiagnosticStatus.WARN
    assert "format 'jpeg'" in message.message
    assert (values["anatomy"], values["volumes_refused"]) == ("stale", "1")
    health.segmented(1.0)
    message, values = status(health)
    assert (message.level, values["anatomy"]) == (DiagnosticStatus.OK, "current")
    assert "format 'jpeg'" in values["last_error"]


def test_failure_of_ours_is_an_error_until_the_next_result(health):
    health.segmented(1.0)
    health.failed("RuntimeError: engine")
    message, values = status(health)
    assert (message.level, values["volumes_failed"], values["anatomy"]) == (DiagnosticStatus.ERROR, "1", "stale")
    health.segmented(1.0)
    assert status(health)[0].level == DiagnosticStatus.OK


def test_result_grows_stale_with_age_if_a_limit_is_set(health, clock):
    health.segmented(1.0)
    clock.now_s += 55.0
    assert status(health)[1]["anatomy"] == "current"
    message, values = status(health, stale_after_s=30.0)
    assert (message.level, values["anatomy"]) == (DiagnosticStatus.STALE, "stale")
    assert message.message == "last result is 55.0 s old"
    health.segmented(1.0)
    assert status(health, stale_after_s=30.0)[0].level == DiagnosticStatus.OK


def test_a_source_that_is_gone_is_not_called_current(health):
    health.listening(True)
    health.sources = 1
    health.seen()
    health.segmented(0.1)
    assert status(health)[1]["source"] == "current"
    health.sources = 0
    message, values = status(health)
    assert (message.level, message.message) == (DiagnosticStatus.OK, "active, no source any more")
    assert (values["source"], values["anatomy"]) == ("gone", "current")


def test_what_came_while_disabled_makes_the_anatomy_stale(health):
    health.segmented(0.1)
    health.seen()
    health.disabled()
    message, values = status(health)
    assert (message.level, values["anatomy"], values["volumes_ignored"]) == (DiagnosticStatus.WARN, "stale", "1")
    assert message.message == "anatomy is stale: a newer volume came while disabled"
    health.segmented(0.1)
    assert status(health)[1]["anatomy"] == "current"


def test_what_was_withdrawn_is_no_anatomy(health):
    health.segmented(0.1)
    health.refused("odd")
    health.withdrawn()
    assert status(health)[1]["anatomy"] == "none"


def test_silent_source_is_stale_until_it_sends_again(health, clock):
    health.listening(True)
    health.sources = 1
    clock.now_s += 4.0
    assert status(health, stale_after_s=5.0)[1]["source"] == "waiting"
    clock.now_s += 2.0
    message, values = status(health, stale_after_s=5.0)
    assert (message.level, values["source"], values["anatomy"]) == (DiagnosticStatus.STALE, "stale", "none")
    assert message.message == "no volume for 6.0 s"
    health.seen()
    message, values = status(health, stale_after_s=5.0)
    assert (message.level, values["source"]) == (DiagnosticStatus.OK, "current")
    clock.now_s += 100.0
    assert status(health)[1]["source"] == "current"
    assert status(health, stale_after_s=5.0)[1]["source"] == "stale"
    health.listening(False)
    assert status(health, stale_after_s=5.0)[1]["source"] == "off"
    clock.now_s += 100.0
    health.listening(True)  # a pause of ours is not the source's
    assert status(health, stale_after_s=5.0)[0].level == DiagnosticStatus.OK


def test_failure_of_ours_outranks_a_silent_source_and_both_are_told(health, clock):
    health.listening(True)
    health.error("engine hangs")
    clock.now_s += 6.0
    message, _ = status(health, stale_after_s=5.0)
    assert message.level == DiagnosticStatus.ERROR
    assert message.message == "engine hangs; no volume for 6.0 s"


def test_warnings_of_the_last_volume_are_shown(health):
    health.segmented(1.0, warnings=("spacing 9 mm: coarse",))
    message, values = status(health)
    assert (message.level, values["warnings"]) == (DiagnosticStatus.WARN, "spacing 9 mm: coarse")


def test_odd_stamp_and_second_source_are_warnings(health):
    health.stamped("stamp 5.000 repeats the one before", {"repeated": 1, "reversed": 0, "ahead": 0})
    health.sources = 2
    message, values = status(health)
    assert message.level == DiagnosticStatus.WARN
    assert message.message == "2 publishers on volume: expected one; stamp 5.000 repeats the one before"
    assert values["stamps_repeated"] == "1"
    health.stamped("", {"repeated": 1, "reversed": 0, "ahead": 0})
    health.sources = 1
    assert status(health)[0].level == DiagnosticStatus.OK
