import argparse
from types import SimpleNamespace

import pytest

from threedme_ros.commands import demo


@pytest.mark.parametrize("given", [["--record", "bags"], []])
def test_the_folder_of_a_recording_reaches_the_node_with_its_full_path(tmp_path, monkeypatch, given):
    pytest.importorskip("rclpy")
    from threedme_ros.nodes import demo_run
    from threedme_ros.pictures import report

    seen = {}
    results = SimpleNamespace(evaluations=(), volumes_segmented=5)
    monkeypatch.setattr(demo_run, "run_demo", lambda **options: seen.update(options) or results)
    monkeypatch.setattr(demo, "unseen_patients", lambda *_: ())
    monkeypatch.setattr(demo, "planned", lambda *_: None)
    monkeypatch.setattr(demo, "replace", lambda results, **_: results)
    monkeypatch.setattr(report, "write_report", lambda *_: "report.html")
    monkeypatch.chdir(tmp_path)
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    assert demo.run(parser.parse_args(given)) == 0
    assert seen["record"] == (str(tmp_path / "bags") if given else "")
