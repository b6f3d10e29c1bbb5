"""Volumes one after the other through a node in another process: every one accounted for."""

import pytest

pytest.importorskip("rclpy")
from threedme_ros.nodes.traffic import Traffic, run_traffic
from threedme_ros.phantom import phantom


def test_every_volume_is_accounted_for_and_repeats_are_not_seen_again(random_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    image = phantom((32, 28, 30), (12.0, 10.0, 14.0))[0]
    sent = []
    traffic = run_traffic(
        [image],
        4,
        progress=sent.append,
        checkpoint=str(random_checkpoint),
        engine="torch",
        threads=1,
        max_faces=400,
        incremental=True,
    )
    assert sent == [1, 2, 3, 4]
    assert traffic.lost == 0
    assert traffic.counts["seen"] == traffic.counts["segmented"] == traffic.sent == 4
    assert traffic.passes == {"full": 1, "incremental": 0, "unchanged": 3}
    assert len(traffic.latencies_ms) == len(traffic.published_ms) == 3
    assert 0 < traffic.percentile_ms(50) <= traffic.percentile_ms(95) < 60_000
    assert min(traffic.rss_mb) > 50
    assert traffic.engine == "torch fp32"


def test_what_is_missing_is_lost_and_memory_is_compared_late_with_early():
    counts = {"seen": 9, "segmented": 6, "refused": 0, "failed": 0, "replaced": 2, "ignored": 0, "overwritten": 1}
    traffic = Traffic((1.0,), (1.0, 2.0, 3.0), 10, counts, {}, (500.0,) * 20 + (100.0,) * 10 + (110.0,) * 10, "e", 1.0)
    assert traffic.lost == 1
    assert traffic.percentile_ms(50) == 2.0
    assert traffic.rss_drift == pytest.approx(0.10)
