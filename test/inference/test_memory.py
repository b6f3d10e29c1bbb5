from pathlib import Path
from types import SimpleNamespace

from threedme_ros.inference import memory
from threedme_ros.inference.memory import affordable_voxels, available_bytes
from threedme_ros.model.config import ModelConfig


def engine(name: str, precision: str = "fp32") -> SimpleNamespace:
    return SimpleNamespace(name=name, precision=precision, device="cpu")


def test_the_window_follows_the_memory_the_engine_and_the_network() -> None:
    small, large = ModelConfig.of_size("small", 3), ModelConfig.of_size("large", 3)
    gigabytes = affordable_voxels(engine("openvino", "bf16"), small, 4e9)
    assert abs(gigabytes - 2 * affordable_voxels(engine("openvino", "bf16"), small, 2e9)) < 2
    assert gigabytes > 256 * 256 * 128  # a whole volume in 4 GB
    assert affordable_voxels(engine("torch"), small, 4e9) < gigabytes
    assert affordable_voxels(engine("torch"), large, 4e9) < affordable_voxels(engine("torch"), small, 4e9)
    assert affordable_voxels(engine("new"), small, 4e9) > 0


def test_a_containers_limit_counts(monkeypatch) -> None:
    real = available_bytes("cpu")
    assert 1e8 < real < 1e14
    numbers = {"memory.max": 3e8, "memory.current": 1e8}
    monkeypatch.setattr(memory, "_number", lambda path: numbers[path.name])
    assert available_bytes("cpu") == 2e8
    numbers["memory.max"] = None
    assert available_bytes("cpu") > 2e8


def test_a_file_without_a_number_is_none(tmp_path) -> None:
    (tmp_path / "max").write_text("max\n")
    assert memory._number(tmp_path / "max") is None
    assert memory._number(tmp_path / "absent") is None
    (tmp_path / "number").write_text("1024\n")
    assert memory._number(tmp_path / "number") == 1024


def test_a_file_of_the_kernels_that_cannot_be_read_is_no_limit(monkeypatch):
    def no_descriptor(path, *_, **__):
        raise OSError(24, "Too many open files", str(path))

    monkeypatch.setattr(Path, "read_text", no_descriptor)
    assert available_bytes("cpu") == float("inf")
    assert affordable_voxels(engine("torch"), ModelConfig.of_size("small", 3)) > 10**18
