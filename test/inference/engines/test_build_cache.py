import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from threedme_ros.inference.engines import build_cache
from threedme_ros.inference.engines.build_cache import cached_build, default_cache_dir, read_cached


class Builder:
    def __init__(self, content: bytes = b"graph") -> None:
        self.content, self.calls = content, 0

    def __call__(self) -> bytes:
        self.calls += 1
        return self.content


def test_the_second_start_reads_what_the_first_built(tmp_path: Path) -> None:
    build = Builder()
    assert cached_build(tmp_path / "new", "onnx", ("a", (1, 2, 3)), build) == b"graph"
    assert cached_build(tmp_path / "new", "onnx", ("a", (1, 2, 3)), build) == b"graph"
    assert build.calls == 1


def test_another_key_is_another_build(tmp_path: Path) -> None:
    cached_build(tmp_path, "onnx", ("a", (1, 2, 3)), Builder(b"one"))
    assert cached_build(tmp_path, "onnx", ("a", (1, 2, 4)), Builder(b"two")) == b"two"
    assert cached_build(tmp_path, "onnx", ("a", (1, 2, 3)), Builder(b"new")) == b"one"


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"", lambda b: b[:-1] + b"?", lambda b: b"?" + b[1:]])
def test_a_damaged_file_is_built_again(tmp_path: Path, damage) -> None:
    cached_build(tmp_path, "onnx", ("a",), Builder())
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    build = Builder()
    assert cached_build(tmp_path, "onnx", ("a",), build) == b"graph"
    assert cached_build(tmp_path, "onnx", ("a",), build) == b"graph"
    assert build.calls == 1


def test_a_file_moved_to_another_keys_place_is_not_trusted(tmp_path: Path) -> None:
    cached_build(tmp_path, "onnx", ("a",), Builder(b"one"))
    (first,) = tmp_path.iterdir()
    stolen = first.read_bytes()
    cached_build(tmp_path, "onnx", ("b",), Builder(b"two"))
    (second,) = set(tmp_path.iterdir()) - {first}
    second.write_bytes(stolen)
    assert cached_build(tmp_path, "onnx", ("b",), Builder(b"two")) == b"two"


def test_a_folder_that_cannot_be_written_costs_only_the_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert cached_build(tmp_path / "file", "onnx", ("a",), Builder()) == b"graph"


def test_nothing_half_written_is_left_behind(tmp_path: Path, monkeypatch) -> None:
    def fails(*_) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fails)
    assert cached_build(tmp_path, "onnx", ("a",), Builder()) == b"graph"
    assert list(tmp_path.iterdir()) == []


def test_what_was_used_longest_ago_makes_room(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(build_cache, "MAX_BYTES", 2500)
    of_a_runtime = tmp_path / "openvino" / "1.blob"
    of_a_runtime.parent.mkdir()
    of_a_runtime.write_bytes(bytes(500))
    os.utime(of_a_runtime, (1, 1))
    for n, seconds in enumerate((10, 20)):
        cached_build(tmp_path, "onnx", (n,), lambda: bytes(900))
        for path in tmp_path.glob("onnx-*"):
            if path.stat().st_mtime > 1000:
                os.utime(path, (seconds, seconds))
    assert of_a_runtime.exists()
    assert read_cached(tmp_path, "onnx", (0,)) is not None  # used: now the younger one
    cached_build(tmp_path, "onnx", (2,), lambda: bytes(1500))
    assert not of_a_runtime.exists()
    assert [read_cached(tmp_path, "onnx", (n,)) is not None for n in range(3)] == [True, False, True]


def test_what_is_larger_than_the_cache_is_kept_alone(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(build_cache, "MAX_BYTES", 100)
    for n in range(3):
        cached_build(tmp_path, "onnx", (n,), lambda: bytes(900))
    assert [read_cached(tmp_path, "onnx", (n,)) is not None for n in range(3)] == [False, False, True]


def test_the_users_cache_is_the_default(monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/here")
    assert default_cache_dir() == Path("/var/here/threedme_ros/engines")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_dir() == Path.home() / ".cache/threedme_ros/engines"


# What follows happens in processes of their own, as on a robot that starts two nodes or loses one to `kill -9`.

NODE = """
import sys, time
from pathlib import Path
from threedme_ros.inference.engines import build_cache

folder, note, size, seconds, writing_seconds = Path(sys.argv[1]), Path(sys.argv[2]), *map(float, sys.argv[3:])

def build() -> bytes:
    with note.open("a") as file:
        file.write("built\\n")
    time.sleep(seconds)
    return b"engine" * int(size)

replace = Path.replace
def slowly(path, target):  # killed here, a process leaves a whole temporary file and no engine
    note.with_suffix(".writing").touch()
    time.sleep(writing_seconds)
    return replace(path, target)
Path.replace = slowly

print(len(build_cache.cached_build(folder, "tensorrt", ("graph", "GPU", (1, 2, 3)), build)), flush=True)
"""


@pytest.fixture
def node(tmp_path: Path):
    """Starts a process that wants the engine: node(seconds to build, seconds to write). Killed at the end."""
    started = []

    def start(seconds: float = 0.0, writing_seconds: float = 0.0) -> subprocess.Popen:
        arguments = [tmp_path / "cache", tmp_path / "note", 100_000, seconds, writing_seconds]
        command = [sys.executable, "-c", NODE, *map(str, arguments)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


def builds(tmp_path: Path) -> int:
    return len((tmp_path / "note").read_text().splitlines())


def test_of_two_nodes_that_start_together_one_builds_and_both_run(tmp_path: Path, node) -> None:
    pair = [node(seconds=1.0), node(seconds=1.0)]
    assert [process.communicate(timeout=60)[0] for process in pair] == ["600000\n"] * 2
    assert builds(tmp_path) == 1
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_node_killed_while_building_does_not_block_the_next(tmp_path: Path, node) -> None:
    victim = node(seconds=600)
    wait_for(tmp_path / "note")
    waiting = node()
    time.sleep(0.5)
    assert waiting.poll() is None
    victim.send_signal(signal.SIGKILL)
    assert waiting.communicate(timeout=60)[0] == "600000\n"
    assert builds(tmp_path) == 2


def test_a_node_killed_while_writing_leaves_nothing_that_is_trusted_and_nothing_that_stays(
    tmp_path: Path, node
) -> None:
    victim = node(writing_seconds=600)
    wait_for(tmp_path / "note.writing")
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    (leftover,) = (tmp_path / "cache").iterdir()
    assert node().communicate(timeout=60)[0] == "600000\n"
    assert builds(tmp_path) == 2
    assert not leftover.exists()
    assert node().communicate(timeout=60)[0] == "600000\n"
    assert builds(tmp_path) == 2


def test_an_engine_truncated_on_the_disk_is_built_again_by_the_next_node(tmp_path: Path, node) -> None:
    node().communicate(timeout=60)
    (path,) = (tmp_path / "cache").iterdir()
    os.truncate(path, 1000)
    assert node().communicate(timeout=60)[0] == "600000\n"
    assert builds(tmp_path) == 2
    assert path.stat().st_size == 600000 + 32
