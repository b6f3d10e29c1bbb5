"""The page from records written by hand: what it shows, and what it refuses to show."""

import argparse
import copy
import importlib.util
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from records import read_faults, read_fuzz, read_soak
from report import main


def fault(scenario="kill -9 of the node", happened="it was there again", passed=True) -> dict:
    expected = "a new one | serves within a minute"
    return {
        "scenario": scenario,
        "repetition": 0,
        "seed": 7,
        "expected": expected,
        "happened": happened,
        "passed": passed,
        "seconds": 3.5,
    }


def decoder(executions=500_000, crashes=0) -> dict:
    refused = {"HeaderError: too short": executions // 2, "HeaderError: magic #": executions // 4}
    return {
        "executions": executions,
        "accepted": executions - sum(refused.values()) - crashes,
        "refused": refused,
        "defects": {"SystemError in nrrd.py:decode": {"times": crashes, "input": "0a"}} if crashes else {},
        "crashes": crashes,
        "seconds": 60.0,
        "slowest_s": 0.25,
    }


GOOD = {
    "faults.json": {
        "command": "make faults",
        "date": "2026-11-25",
        "records": [fault()] * 150 + [fault("full disk", f"warned in {i}.5 s" if i % 3 else "died") for i in range(60)],
        "impossible": {"memory limit": "no cgroups here"},
    },
    "fuzz.json": {
        "command": "make fuzz",
        "engine": "atheris",
        "decoders": {"nifti": decoder(), "nrrd": decoder(600_000)},
    },
    "soak.json": {
        "volumes": 2400,
        "minutes": 21.5,
        "volumes_with_warm_up": 2563,
        "outcomes": {"segmented": 2400, "refused": 100, "failed": 0, "replaced": 60, "ignored": 3},
        "lost_uncounted": 0,
        "surprises": [],
        "by_kind": {"small": 2200, "large": 100, "bad": 100},
        "distinct_good_volumes": 163,
        "engine": {"engine": "openvino", "precision": "bf16", "device": "cpu"},
        "rss_mb": {"first": 1500.0, "last": 1503.0, "max": 1600.0, "drift": 0.002},
        "fds": {"first": 80, "last": 80, "max": 82},
        "threads": {"first": 30, "last": 30, "max": 31},
        "shared_memory_segments": {"first": 4, "last": 4, "max": 4},
        "left_behind": [],
        "cpu_ms_a_volume_by_third": [300.0, 301.0, 299.0],
        "latency_ms_by_third": {"small": [{"n": 700, "p50": 200.0, "p95": 300.0}] * 3, "large": [{"n": 0}] * 3},
        "failures": [],
        "passed": True,
    },
}


@pytest.fixture
def records(tmp_path):
    """Good ones, to be spoilt by ``records[name]`` before `page` writes them."""
    return copy.deepcopy(GOOD)


@pytest.fixture
def page(tmp_path, records, monkeypatch):
    """``page(*options)``: exit status and text of the page, None where none was written."""

    monkeypatch.setattr("report.hardware", lambda: "a machine")
    monkeypatch.setattr("report.revision", lambda: "a revision")

    def make(*options: str) -> tuple[int, str | None]:
        for name, record in records.items():
            (tmp_path / name).write_text(record if isinstance(record, str) else json.dumps(record))
        output = tmp_path / "reliability.md"
        status = main(["--records", str(tmp_path), "--output", str(output), *options])
        return status, output.read_text() if output.exists() else None

    return make


def test_the_page_holds_what_the_records_say(page):
    status, text = page()
    assert status == 0 and "PARTIAL" not in text
    assert "210 faults were injected into running processes over DDS; 210 ended as they must" in text
    expected = "| kill -9 of the node | a new one \\| serves within a minute | it was there again | 150 | 150 |"
    assert expected in text
    assert "| warned in N s (40); died (20) | 60 | 60 |" in text
    assert "| memory limit | | not injected here: no cgroups here | 0 | 0 |" in text
    assert "1,100,000 inputs to 2 decoders (atheris), 0 crashes" in text
    assert "| nifti | 500,000 | 125,000 | 375,000 | 0 | 0.25 | HeaderError: too short; HeaderError: magic # |" in text
    assert "| volumes | 2,400 in 21.5 minutes" in text
    assert "| lost, in no count | 0 |" in text
    assert "1500 at first, 1503 at last (+0.20%), 1600 at most" in text
    assert "| latency of small volumes, p50 and p95 by third, ms | 200, 300 / 200, 300 / 200, 300 |" in text
    assert "| faults.json | `make faults`; 2026-11-25; SHA-256 " in text
    assert "| from revision | a revision |\n| on | a machine |" in text


def test_every_row_of_a_table_has_as_many_cells_as_its_head(page):
    _, text = page()
    widths = []
    for line in text.splitlines():
        widths = [*widths, line.replace("\\|", "").count("|")] if line.startswith("|") else []
        assert len(set(widths)) <= 1, line


SPOILT = [
    ("faults.json", lambda r: r["records"].__delitem__(slice(11, None)), "11 faults injected: expected at least 200"),
    (
        "faults.json",
        lambda r: r["records"].append(fault(passed=False, happened="gone")),
        "did not end as it must: gone",
    ),
    ("faults.json", lambda r: r["records"].append(fault(passed="yes")), "did not end as it must"),
    ("faults.json", lambda r: r.update(scenarios=["full disk", "clock jump"]), "'clock jump' was never injected"),
    ("fuzz.json", lambda r: r["decoders"].pop("nrrd"), "500,000 executions: expected at least 1,000,000"),
    ("fuzz.json", lambda r: r["decoders"].update(nrrd=decoder(600_000, 2)), "nrrd: 2 crashes, 1 defects"),
    ("fuzz.json", lambda r: r["decoders"].update(dicom=decoder(0)), "dicom: 0 executions without an answer"),
    ("soak.json", lambda r: r.update(volumes=1999), "1,999 volumes: expected at least 2,000"),
    ("soak.json", lambda r: r.update(minutes=19.9), "19.9 minutes: expected at least 20"),
    ("soak.json", lambda r: r["outcomes"].update(replaced=59), "1 volumes are in no count, 0 by the record"),
    ("soak.json", lambda r: r.update(failures=["fds rose from 80 to 90"]), "fds rose from 80 to 90"),
    ("soak.json", lambda r: r.update(passed=False), "it did not pass"),
    ("soak.json", lambda r: r.pop("outcomes"), "not such a record (KeyError: 'outcomes')"),
]


@pytest.mark.parametrize(("name", "spoil", "reason"), SPOILT, ids=[reason for *_, reason in SPOILT])
def test_a_record_that_failed_or_is_too_small_is_not_shown(records, page, capsys, name, spoil, reason):
    spoil(records[name])
    assert page() == (1, None)
    assert reason in capsys.readouterr().err
    status, text = page("--partial")
    assert status == 0 and text.index("**PARTIAL.") < text.index("## Faults")
    assert f"> - {name}: " in text and reason in text


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("content", [None, "", "[1]", "{}", '{"records": 3, "decoders": 3}'])
def test_a_record_that_is_none_is_named_and_the_others_are_shown_partially(records, page, tmp_path, name, content):
    del records[name]
    if content is not None:
        (tmp_path / name).write_text(content)
    assert page() == (1, None)
    status, text = page("--partial")
    assert status == 0 and f"No record: {name}: " in text
    shown = {"faults.json": "| kill -9", "fuzz.json": "| nifti", "soak.json": "| verdict | passed |"}
    assert [file for file, row in shown.items() if row in text] == [file for file in GOOD if file != name]


def test_a_failed_fault_stands_out(records, page):
    records["faults.json"]["records"].append(fault(passed=False, happened="gone"))
    _, text = page("--partial")
    assert "it was there again (150); FAILED: gone (1) | 151 | **150** |" in text


def test_good_records_have_no_problem(tmp_path):
    for name, read in (("faults.json", read_faults), ("fuzz.json", read_fuzz), ("soak.json", read_soak)):
        (tmp_path / name).write_text(json.dumps(GOOD[name]))
        assert read(tmp_path / name).problems == ()


# What the three commands really write is what is read here.


def test_the_record_of_a_soak_is_one_that_is_read(tmp_path, records, page):
    pytest.importorskip("rclpy")
    from threedme_ros.nodes.process_facts import ProcessFacts
    from threedme_ros.nodes.soak_mix import Sample
    from threedme_ros.nodes.soak_report import Step, report

    facts = ProcessFacts(1000.0, 30, 20, 5.0, frozenset({"fastdds_1"}))
    steps = [Step((Sample(None, "small", f"ct {i}"),), {"segmented": 1}, 100.0, 50.0, facts, True) for i in range(300)]
    engine = {"engine": "torch", "precision": "fp32", "device": "cpu"}
    about = {"minutes": 25.0, "sent": 300, "outcomes": {"segmented": 300}, "engine": engine, "left_behind": []}
    records["soak.json"] = report(steps, **about)
    status, text = page("--partial")
    assert status == 0 and "| different good volumes | 300 |" in text and "| verdict | passed |" in text
    assert read_soak(tmp_path / "soak.json").problems == ("soak.json: 300 volumes: expected at least 2,000",)


def loaded(path: Path):
    """The script ``path`` as a module."""
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_record_of_the_fuzzer_is_one_that_is_read(tmp_path, monkeypatch):
    fuzz = loaded(Path(__file__).parents[1] / "fuzz" / "run.py")
    monkeypatch.setattr(fuzz, "origin", dict)
    options = argparse.Namespace(output=tmp_path / "fuzz.json", seed=1, executions=10)
    fuzz._write(options, "random", {"nifti": decoder(10)})
    assert read_fuzz(tmp_path / "fuzz.json").problems == ("fuzz.json: 10 executions: expected at least 1,000,000",)


def test_the_record_of_the_fault_harness_is_one_that_is_read(tmp_path, monkeypatch):
    pytest.importorskip("rclpy")
    monkeypatch.setattr(sys, "path", [*sys.path])
    faults = loaded(Path(__file__).parents[1] / "ros" / "faults" / "run.py")
    options = argparse.Namespace(seed=1, origin={})
    done = [faults.Record(**fault(happened=f"in {i} s")) for i in range(200)]
    faults.write(tmp_path / "faults.json", done, {"memory limit": "no"}, options, 0.0, 1)
    assert read_faults(tmp_path / "faults.json").problems == ()
