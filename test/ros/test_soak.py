"""A miniature of the soak: everything sent is accounted for, and each thing that can go wrong is seen."""

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy")
from threedme_ros.nodes.process_facts import ProcessFacts
from threedme_ros.nodes.soak import SoakPlan, run_soak
from threedme_ros.nodes.soak_mix import FIELDS, Sample, endless, make_pool
from threedme_ros.nodes.soak_report import Step, report

FINE_MM = (2.0, 2.0, 2.0)
"""Small fields of view: random weights make salt and pepper, whose surfaces take long where there are many voxels."""


def test_a_short_soak_accounts_for_every_volume(random_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    seen = []
    found = run_soak(
        SoakPlan(volumes=40, minutes=0.0, small=8, large=0),
        FINE_MM,
        lambda volumes, minutes: seen.append(volumes),
        checkpoint=str(random_checkpoint),
        engine="torch",
        threads=1,
        max_faces=400,
    )
    json.dumps(found)
    assert seen[0] < 0 and seen[-1] == found["volumes"] >= 40
    assert found["lost_uncounted"] == 0 and found["surprises"] == []
    outcomes = found["outcomes"]
    assert sum(outcomes.values()) == found["volumes_with_warm_up"] == found["volumes"] + 8 + found["pool"]["bad"]
    assert outcomes["segmented"] > 20 and outcomes["refused"] >= found["pool"]["bad"] and outcomes["failed"] == 0
    assert found["left_behind"] == []
    assert found["engine"]["engine"] == "torch"
    assert (
        len(found["rss_mb"]["readings"]) == 2
        and found["rss_mb"]["first"] > 50
        and found["fds"]["first"] > 5
        and found["shared_memory_segments"]["first"] > 0
    )


def test_the_mix_holds_every_kind_and_more_shapes_than_an_engine_keeps():
    pool = make_pool((3.0, 3.0, 3.0), 16, 1, np.random.default_rng(0))
    names = " ".join(sample.name for sample in pool["small"])
    assert {s.field for s in pool["small"]} == set(range(len(FIELDS))) and len(FIELDS) > 4
    assert all(word in names for word in ("int16", "uint8", "float32", "nrrd", "nifti; gzip", "LPS"))
    for sample in pool["small"]:
        shape = [int(n) for n in sample.name.split()[0].split("x")]
        assert all(32 <= n <= 128 for n in shape)
    assert len(pool["large"][0].message.data) == 256 * 256 * 128 * 2 + 352
    assert len({sample.name for sample in pool["bad"]}) == len(pool["bad"]) >= 12
    steps = [step for step, _ in zip(endless(pool, np.random.default_rng(1)), range(300), strict=False)]
    kinds = {sample.kind for step in steps for sample in step}
    assert kinds == {"small", "large", "bad"}
    assert 5 < sum(len(step) > 1 for step in steps) < 60


FACTS = ProcessFacts(1000.0, 30, 20, 5.0, frozenset({"fastdds_1"}))
GOOD = Sample(None, "small", "good")


def steps(count: int = 300, **last) -> list[Step]:
    """Steady ones, except that the last third has other ``last`` facts, ``cpu_ms`` or ``latency_ms``."""
    odd = {key: last.pop(key) for key in ("cpu_ms", "latency_ms") if key in last}
    even = Step((GOOD,), {"segmented": 1}, 100.0, 50.0, FACTS, reading=True)
    late = replace(even, facts=replace(FACTS, **last), **odd)
    return [even] * (2 * count // 3) + [late] * (count // 3)


def verdict(found_steps, sent=300, **about):
    options = {"minutes": 1.0, "sent": sent, "outcomes": {"segmented": 300}, "left_behind": [], **about}
    return report(found_steps, **options)["failures"]


def test_a_steady_node_passes():
    assert verdict(steps()) == []
    assert report(steps(), minutes=1.0, sent=300, outcomes={"segmented": 300}, left_behind=[])["passed"] is True


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rss_mb": 1021.0}, "memory rose by 2.1%: expected at most 2%"),
        ({"fds": 31}, "fds rose from 30 to 31"),
        ({"threads": 21}, "threads rose from 20 to 21"),
        ({"segments": frozenset("ab")}, "shared_memory_segments rose from 1 to 2"),
        ({"cpu_ms": 61.0}, "the same volumes took 22% more processor time: expected at most 20%"),
        ({"latency_ms": 151.0}, "the same volumes took 51% longer: expected at most 50%"),
    ],
)
def test_each_leak_fails(changes, said):
    assert verdict(steps(**changes)) == [said]


def test_losses_leftovers_and_surprises_fail():
    assert verdict(steps(), sent=301) == ["1 volumes are in no count"]
    assert verdict(steps(), left_behind=["fastdds_7"]) == ["left in shared memory: fastdds_7"]
    refused = replace(steps()[0], outcomes={"refused": 1})
    assert "1 volumes got what they should not, e.g. good: expected segmented" in verdict([*steps(), refused])[0]
