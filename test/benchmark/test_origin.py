"""What a record says of itself."""

import subprocess

import pytest

from threedme_ros.benchmark.origin import ROOT, origin, revision


def git(*words: str) -> str:
    return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False).stdout.strip()


def test_the_revision_is_the_checkouts():
    head = git("rev-parse", "HEAD")
    assert head.startswith(revision().removesuffix(" and changes")) if head else revision() == "unknown"


def test_a_revision_with_changes_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("threedme_ros.benchmark.origin.ROOT", tmp_path)
    assert revision() == "unknown"
    settings = ["-c", "user.name=a", "-c", "user.email=a@b.invalid"]
    (tmp_path / "file").write_text("one")
    for words in (["init", "-q"], ["add", "file"], [*settings, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    clean = revision()
    assert len(clean) == 12 and int(clean, 16) >= 0
    (tmp_path / "file").write_text("two")
    assert revision() == f"{clean} and changes"


@pytest.mark.parametrize(
    ("program", "shown"),
    [(str(ROOT / "test/fuzz/run.py"), "test/fuzz/run.py"), (str(ROOT / ".venv/bin/threedme"), "threedme")],
)
def test_a_command_is_named_without_where_the_checkout_lies(monkeypatch, program, shown):
    monkeypatch.setattr("sys.argv", [program, "--count", "2 00"])
    monkeypatch.setattr("threedme_ros.benchmark.origin.hardware", lambda: "a machine")
    told = origin()
    assert told["command"] == f"{shown} --count '2 00'" and told["machine"] == "a machine"
    assert told["date"].endswith(" UTC") and told.keys() == {"command", "date", "revision", "machine"}
