import errno
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("pynetdicom", reason="pynetdicom is not installed: pip install 'threedme_ros[dicom]'")
from rclpy.parameter import Parameter

from threedme_ros.nodes import dicom_receiver
from threedme_ros.nodes.dicom_receiver import DicomReceiver
from threedme_ros.phantom import phantom
from threedme_ros.volume_io import VolumeIOError, read_volume

SERIES = SimpleNamespace(tag="abcd1234", volume=lambda **how: phantom((4, 5, 6))[0])


@pytest.fixture
def receiver(ros, tmp_path):
    chosen = {"port": 0, "save_folder": str(tmp_path)}
    node = DicomReceiver(context=ros, parameter_overrides=[Parameter(name, value=v) for name, v in chosen.items()])
    yield node
    node.close()
    node.destroy_node()


def counts(receiver):
    return {name: count for name, count in receiver._tally.counts.items() if count}


def test_a_series_is_published_and_saved(receiver, tmp_path):
    receiver._publish(SERIES)
    (file,) = tmp_path.glob("abcd1234_*.nii.gz")
    assert read_volume(file).shape == (4, 5, 6)
    assert counts(receiver) == {"series_published": 1}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/home/somebody/file"), "No space left on device"),
        (VolumeIOError("no such encoding"), "no such encoding"),
    ],
)
def test_a_series_that_cannot_be_saved_is_published_all_the_same_and_not_refused(receiver, monkeypatch, error, reason):
    def full(path, volume):
        raise error

    monkeypatch.setattr(dicom_receiver, "write_volume", full)
    receiver._publish(SERIES)
    assert counts(receiver) == {"series_published": 1, "series_not_saved": 1}
    assert receiver._tally.last_error == f"series abcd1234 published, but not saved: {reason}"
