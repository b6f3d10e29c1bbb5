from pathlib import Path

import pytest

from threedme_ros.inference.engines.build_cache import cached_build, default_cache_dir


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


def test_the_users_cache_is_the_default(monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/here")
    assert default_cache_dir() == Path("/var/here/threedme_ros/engines")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_dir() == Path.home() / ".cache/threedme_ros/engines"
