import pytest

pytest.importorskip("rclpy")
from diagnostic_msgs.msg import DiagnosticStatus

from threedme_ros.nodes.diagnostics import Health

ENGINE = {"engine": "torch", "precision": "fp32", "device": "cpu", "checkpoint": "0123456789abcdef"}


def status(health, now_s=10.0, stale_after_s=0.0):
    message = health.status("/perception", "active", now_s, stale_after_s, ENGINE)
    return message, {pair.key: pair.value for pair in message.values}


def test_before_the_first_volume_there_is_no_anatomy():
    message, values = status(Health())
    assert message.level == DiagnosticStatus.OK
    assert (values["anatomy"], values["age_of_last_result_s"], values["state"]) == ("none", "", "active")
    assert {key: values[key] for key in ENGINE} == ENGINE


def test_latency_percentiles_and_age():
    health = Health()
    for milliseconds in range(1, 102):  # p50 = 51, p95 = 96
        health.segmented(now_s=5.0, stamp_s=5.0 - milliseconds / 1000)
    _, values = status(health, now_s=7.5)
    assert (values["stamp_to_publish_p50_ms"], values["stamp_to_publish_p95_ms"]) == ("51.0", "96.0")
    assert (values["age_of_last_result_s"], values["volumes_segmented"]) == ("2.500", "101")


def test_refused_volume_makes_the_anatomy_stale_until_the_next_good_one():
    health = Health()
    health.segmented(now_s=5.0, stamp_s=4.0)
    health.refused("format 'jpeg': expected nifti")
    message, values = status(health)
    assert message.level == DiagnosticStatus.WARN
    assert "format 'jpeg'" in message.message
    assert (values["anatomy"], values["volumes_refused"]) == ("stale", "1")
    health.segmented(now_s=6.0, stamp_s=5.0)
    message, values = status(health)
    assert (message.level, values["anatomy"]) == (DiagnosticStatus.OK, "current")
    assert "format 'jpeg'" in values["last_error"]


def test_failure_of_ours_is_an_error():
    health = Health()
    health.failed("RuntimeError: engine")
    message, values = status(health)
    assert (message.level, values["volumes_failed"]) == (DiagnosticStatus.ERROR, "1")


def test_result_grows_stale_with_age_if_a_limit_is_set():
    health = Health()
    health.segmented(now_s=5.0, stamp_s=4.0)
    assert status(health, now_s=60.0)[1]["anatomy"] == "current"
    message, values = status(health, now_s=60.0, stale_after_s=30.0)
    assert (message.level, values["anatomy"]) == (DiagnosticStatus.WARN, "stale")


def test_warnings_of_the_last_volume_are_shown():
    health = Health()
    health.segmented(now_s=5.0, stamp_s=4.0, warnings=("spacing 9 mm: coarse",))
    message, values = status(health)
    assert (message.level, values["warnings"]) == (DiagnosticStatus.WARN, "spacing 9 mm: coarse")
