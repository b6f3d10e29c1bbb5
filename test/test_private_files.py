"""Who may read and change what we write: real files, real modes, links planted in the way."""

import os
import stat
from pathlib import Path

import numpy as np
import pytest
import torch

from threedme_ros.inference.engines.build_cache import cached_build, read_cached
from threedme_ros.model.weights_file import write_weights
from threedme_ros.private_files import SHARED_FILE, UntrustedError, private_folder, read_trusted, replacing
from threedme_ros.training.volume_cache import _write
from threedme_ros.volume import Volume
from threedme_ros.volume_io import read_volume, write_volume

SOMEBODY_ELSE = 12345


@pytest.fixture(autouse=True)
def open_umask():
    """The widest: what is narrow now was made narrow by us."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def foreign(monkeypatch):
    """From here on we are another user than the one who made the files (who may be root)."""

    def change() -> None:
        monkeypatch.setattr("threedme_ros.private_files.os.geteuid", lambda: SOMEBODY_ELSE)
        monkeypatch.setattr("threedme_ros.private_files.ROOT", -1)

    return change


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_file_is_private_whole_and_leaves_nothing_beside_it(tmp_path):
    with replacing(tmp_path / "labels.nii") as temporary:
        assert mode(temporary) == 0o600 and temporary.parent == tmp_path and not (tmp_path / "labels.nii").exists()
        temporary.write_bytes(b"voxels")
    assert [path.name for path in tmp_path.iterdir()] == ["labels.nii"]
    assert mode(tmp_path / "labels.nii") == 0o600


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(OSError, match="full"), replacing(tmp_path / "file") as temporary:
        temporary.write_text("half")
        raise OSError("full")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "old")]


def test_a_link_in_the_way_is_replaced_and_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("theirs")
    (tmp_path / "result.nii.gz").symlink_to(victim)
    write_volume(tmp_path / "result.nii.gz", Volume(np.zeros((3, 4, 5), np.uint8), np.eye(4), "patient"))
    assert victim.read_text() == "theirs" and not (tmp_path / "result.nii.gz").is_symlink()


@pytest.mark.parametrize("name", ["ct.raw", "ct.mhd"])
def test_a_link_in_the_way_of_either_file_of_an_mhd_is_replaced_and_not_followed(tmp_path, name):
    victim = tmp_path / "victim"
    victim.write_text("theirs")
    victim.chmod(0o644)
    (tmp_path / name).symlink_to(victim)
    volume = Volume(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.eye(4), "patient")
    write_volume(tmp_path / "ct.mhd", volume)
    assert (victim.read_text(), mode(victim)) == ("theirs", 0o644)
    assert {path.name for path in tmp_path.iterdir() if not path.is_symlink()} == {"ct.mhd", "ct.raw", "victim"}
    np.testing.assert_array_equal(read_volume(tmp_path / "ct.mhd").voxels, volume.voxels)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha", ".mhd"])
def test_only_its_owner_reads_a_volume_we_write(tmp_path, suffix):
    volume = Volume(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.eye(4), "patient")
    write_volume(tmp_path / f"ct{suffix}", volume)
    assert {mode(path) for path in tmp_path.iterdir()} == {0o600}
    np.testing.assert_array_equal(read_volume(tmp_path / f"ct{suffix}").voxels, volume.voxels)


def test_only_its_owner_reads_a_prepared_scan(tmp_path):
    _write(tmp_path / "scan.npy", np.zeros((2, 3, 4), np.float16))
    assert [mode(path) for path in tmp_path.iterdir()] == [0o600]


def test_others_may_read_a_checkpoint_but_not_change_it(tmp_path):
    write_weights(tmp_path / "model.safetensors", {"format": "test"}, {"w": torch.ones(2, 2)}, torch.float32)
    assert [mode(path) for path in tmp_path.iterdir()] == [SHARED_FILE]


def test_the_umask_narrows_a_checkpoint_further(tmp_path):
    os.umask(0o077)
    write_weights(tmp_path / "model.safetensors", {"format": "test"}, {"w": torch.ones(2, 2)}, torch.float32)
    assert [mode(path) for path in tmp_path.iterdir()] == [0o600]


def test_the_engine_cache_is_ours_alone(tmp_path):
    folder = tmp_path / "threedme_ros" / "engines"
    assert cached_build(folder, "onnx", ("a",), lambda: b"graph") == b"graph"
    assert mode(folder) == 0o700
    assert [mode(path) for path in folder.iterdir()] == [0o600]


def test_a_cache_folder_that_was_open_to_others_is_narrowed(tmp_path):
    folder = tmp_path / "engines"
    folder.mkdir(mode=0o777)
    cached_build(folder, "onnx", ("a",), lambda: b"graph")
    assert mode(folder) == 0o700


def test_a_cached_engine_that_others_can_write_is_not_loaded(tmp_path):
    cached_build(tmp_path, "onnx", ("a",), lambda: b"graph")
    (path,) = tmp_path.iterdir()
    path.chmod(0o660)
    assert read_cached(tmp_path, "onnx", ("a",)) is None
    assert cached_build(tmp_path, "onnx", ("a",), lambda: b"built again") == b"built again"
    assert mode(path) == 0o600


def test_a_cached_engine_that_is_a_link_is_not_loaded(tmp_path):
    cached_build(tmp_path, "onnx", ("a",), lambda: b"graph")
    (path,) = tmp_path.iterdir()
    planted = path.rename(tmp_path / "planted")
    path.symlink_to(planted)
    assert read_cached(tmp_path, "onnx", ("a",)) is None


def test_a_pipe_in_the_cache_does_not_hang_the_start(tmp_path):
    cached_build(tmp_path, "onnx", ("a",), lambda: b"graph")
    (path,) = tmp_path.iterdir()
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UntrustedError, match="plain file"):
        read_trusted(path)


def test_somebody_elses_cache_is_neither_read_nor_written(tmp_path, foreign):
    cached_build(tmp_path / "cache", "onnx", ("a",), lambda: b"planted")
    foreign()
    assert cached_build(tmp_path / "cache", "onnx", ("a",), lambda: b"mine") == b"mine"
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_folder_that_is_a_link_or_not_ours_is_refused(tmp_path, foreign):
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(UntrustedError, match="a link"):
        private_folder(tmp_path / "link")
    foreign()
    with pytest.raises(UntrustedError, match=f"expected a folder of user {SOMEBODY_ELSE}"):
        private_folder(tmp_path)


def test_a_folder_that_anybody_can_exchange_is_refused(tmp_path):
    tmp_path.chmod(0o777)
    with pytest.raises(UntrustedError, match="anybody may write to"):
        private_folder(tmp_path / "cache")
    tmp_path.chmod(0o1777)  # sticky, as /tmp is
    private_folder(tmp_path / "cache")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_folder_that_holds_somebody_elses_file_is_refused(tmp_path):
    (tmp_path / "planted.blob").write_bytes(b"program")
    os.chown(tmp_path / "planted.blob", SOMEBODY_ELSE, SOMEBODY_ELSE)
    with pytest.raises(UntrustedError, match=f"planted.blob: owned by user {SOMEBODY_ELSE}"):
        private_folder(tmp_path)
