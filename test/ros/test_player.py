import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage

from threedme_ros.nodes.messages import volume_from_message
from threedme_ros.nodes.qos import VOLUMES
from threedme_ros.phantom import phantom
from threedme_ros.volume_io import write_volume


def test_phantom_arrives_whole_from_the_first_volume_on(domain):
    player = domain.start("volume_player", source="phantom", count=3, rate=20.0, frame_id="ct")
    player.wait_for("waiting for a subscriber")
    received = domain.collect(CompressedImage, "volume", VOLUMES)
    domain.spin_until(lambda: len(received) == 3, what="not three volumes")
    expected = phantom()[0]
    for message in received:
        volume = volume_from_message(message)
        np.testing.assert_array_equal(volume.voxels, expected.voxels)
        np.testing.assert_allclose(volume.affine, expected.affine)
        assert message.header.frame_id == "ct"
    stamps = [m.header.stamp.sec + m.header.stamp.nanosec / 1e9 for m in received]
    assert stamps == sorted(set(stamps))
    assert player.wait() == 0
    assert "done: 3 volumes published" in player.output()


@pytest.mark.parametrize("format", ["nrrd", "nifti; gzip"])
def test_file_is_republished_in_another_order_and_format(domain, tmp_path, format):
    image = phantom((24, 20, 16), (8.0, 9.0, 10.0))[0]
    write_volume(tmp_path / "ct.nii.gz", image)
    received = domain.collect(CompressedImage, f"{format[0]}/volume", VOLUMES)
    player = domain.start(
        "volume_player",
        "-r",
        f"__ns:=/{format[0]}",
        source=tmp_path / "ct.nii.gz",
        format=format,
        orientation="PSL",
        loop=False,
    )
    domain.spin_until(lambda: received, what="no volume")
    volume = volume_from_message(received[0])
    assert (received[0].format, volume.grid.orientation, volume.shape) == (format, "PSL", (20, 16, 24))
    np.testing.assert_array_equal(volume.reoriented("RAS")[0].voxels, image.voxels)
    np.testing.assert_allclose(volume.reoriented("RAS")[0].affine, image.affine, atol=1e-4)
    assert player.wait() == 0


def test_simulated_resection_grows_from_volume_to_volume(domain):
    received = domain.collect(CompressedImage, "changing/volume", VOLUMES)
    domain.start("volume_player", "-r", "__ns:=/changing", count=3, rate=10.0, change_mm=10.0)
    domain.spin_until(lambda: len(received) == 3, what="not three volumes")
    original = phantom()[0].voxels
    changed = [np.count_nonzero(volume_from_message(m).voxels != original) for m in received]
    assert changed[0] == 0 < changed[1] < changed[2]


def test_it_plays_in_simulated_time_without_a_clock(domain):
    received = domain.collect(CompressedImage, "simulated/volume", VOLUMES)
    player = domain.start("volume_player", "-r", "__ns:=/simulated", use_sim_time=True, count=2, rate=10.0)
    domain.spin_until(lambda: len(received) == 2, what="not two volumes")
    assert player.wait() == 0


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"source": "/nowhere/ct.nii.gz"}, "error: source '/nowhere/ct.nii.gz': "),
        ({"source": "' , ,'"}, "error: source ' , ,': expected at least one"),
        ({"source": "','", "wait_for_subscriber": False}, "error: source ',': expected at least one"),
        ({"source": "sample:Z"}, "sample case 'Z': expected one of"),
        ({"format": "jpeg"}, "error: format 'jpeg': expected one of"),
        ({"orientation": "XYZ"}, "error: orientation 'XYZ': expected"),
        ({"rate": 0.0}, "rate"),
    ],
)
def test_unusable_parameter_is_one_line_and_exit_status_1(domain, parameters, reason):
    player = domain.start("volume_player", **parameters)
    assert player.wait() == 1
    assert reason in player.output()
    assert "Traceback" not in player.output()


def test_ctrl_c_is_a_clean_end(domain):
    player = domain.start("volume_player", "-r", "__ns:=/alone")
    player.wait_for("waiting for a subscriber")
    assert player.interrupt() == 0
    assert "Traceback" not in player.output()
