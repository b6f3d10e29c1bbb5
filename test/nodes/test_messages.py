import hashlib
import json
from array import array

import numpy as np
import pytest

pytest.importorskip("rclpy")
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header, String

import threedme_ros
from threedme_ros.anatomy import Anatomy, AnatomyError
from threedme_ros.inference.made_by import MadeBy
from threedme_ros.nodes import messages
from threedme_ros.nodes.messages import (
    MessageError,
    anatomy_from_label_info,
    byte_array,
    image_message,
    label_info_message,
    plain_image,
    trace_message,
    volume_from_message,
    volume_message,
)
from threedme_ros.share import share_path
from threedme_ros.volume import Volume, VolumeError

pytestmark = pytest.mark.filterwarnings("ignore:tostring:DeprecationWarning")  # PyPI's cv_bridge

STAMP = Time(sec=12, nanosec=345)
AFFINE = np.array([[-0.9, 0.1, 0, 10], [0.1, 0.9, 0, -20], [0, 0, 2.5, 30], [0, 0, 0, 1]], np.float32)


@pytest.fixture
def volume():
    voxels = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6) - 60
    return Volume(voxels, AFFINE, "ct_frame")


@pytest.mark.parametrize("format", ["nifti", "nifti; gzip", "nrrd"])
def test_volume_survives_the_message(volume, format):
    message = volume_message(volume, STAMP, format)
    back = volume_from_message(message)
    assert message.format == format
    assert (message.header.stamp, message.header.frame_id, back.frame_id) == (STAMP, "ct_frame", "ct_frame")
    np.testing.assert_array_equal(back.voxels, volume.voxels)
    np.testing.assert_array_equal(back.affine.astype(np.float32), AFFINE)


def test_data_is_the_array_type_that_rclpy_takes_as_it_is(volume):
    data = volume_message(volume, STAMP).data
    assert isinstance(data, array) and data.typecode == "B"
    assert byte_array(b"\x01\xff") == array("B", [1, 255])


def test_plain_nifti_voxels_are_a_view_of_the_message(volume):
    message = volume_message(volume, STAMP)
    voxels = volume_from_message(message).voxels
    assert np.shares_memory(voxels, np.frombuffer(message.data, np.uint8))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: setattr(m.header, "stamp", Time()), r"header\.stamp 0\.000000000: expected"),
        (lambda m: setattr(m.header, "stamp", Time(sec=-1)), r"header\.stamp -1\.000000000: expected"),
        (lambda m: setattr(m.header, "frame_id", ""), r"header\.frame_id '': expected"),
        (lambda m: setattr(m.header, "frame_id", "a" * 256), f"header.frame_id '{'a' * 40}': expected at most 255"),
        (
            lambda m: setattr(m.header, "frame_id", "a\n[ERROR] b"),
            "frame_id 'a.*: expected at most 255 printable",
        ),
        (lambda m: setattr(m, "format", "jpeg"), r"format 'jpeg': expected one of \['nifti'"),
    ],
)
def test_header_that_breaks_the_contract_is_refused(volume, change, reason):
    message = volume_message(volume, STAMP)
    change(message)
    with pytest.raises(MessageError, match=reason):
        volume_from_message(message)


def test_empty_data_and_too_many_voxels_are_refused(volume):
    with pytest.raises(VolumeError):
        volume_from_message(CompressedImage(header=Header(stamp=STAMP, frame_id="a"), format="nifti"))
    with pytest.raises(VolumeError, match="120"):
        volume_from_message(volume_message(volume, STAMP), max_voxels=119)


def test_overlay_by_cv_bridge_equals_the_one_by_hand(monkeypatch):
    rgb = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    header = Header(stamp=STAMP, frame_id="ct_frame")
    by_bridge = image_message(rgb, header)
    monkeypatch.setattr(messages, "_cv_bridge", lambda: None)
    by_hand = image_message(rgb, header)
    assert by_bridge == by_hand
    assert (by_hand.encoding, by_hand.height, by_hand.width, by_hand.step) == ("rgb8", 7, 5, 15)
    assert bytes(by_hand.data) == rgb.tobytes()
    assert by_hand.header == header


def test_cv_bridge_is_used_where_it_works():
    pytest.importorskip("cv_bridge")
    assert messages._cv_bridge() is not None


def test_overlay_refuses_other_arrays():
    with pytest.raises(MessageError, match=r"\(4, 4\)"):
        image_message(np.zeros((4, 4), np.uint8), Header())
    assert plain_image(np.zeros((2, 4, 3), np.uint8)[:, ::2]).width == 2


def test_label_info_names_structures_checkpoint_and_notice():
    anatomy = Anatomy.from_yaml(share_path("config/anatomy.yaml"))
    info = json.loads(label_info_message(anatomy, {"checkpoint": "0123456789abcdef", "engine": "torch"}).data)
    assert info["notice"] == "for demonstration only, not for clinical use"
    assert (info["checkpoint"], info["engine"]) == ("0123456789abcdef", "torch")
    liver = next(s for s in info["structures"] if s["name"] == "liver")
    assert liver == {"id": 4, "name": "liver", "colour": [221, 130, 101], "margin_mm": 3.0, "role": "target"}


def test_label_info_is_read_back():
    anatomy = Anatomy.from_yaml(share_path("config/anatomy.yaml"))
    assert anatomy_from_label_info(label_info_message(anatomy, {"engine": "torch"})) == anatomy


@pytest.mark.parametrize("text", ["", "[]", "{}", "nonsense", "[" * 100_000])
def test_other_texts_are_no_label_info(text):
    with pytest.raises(MessageError, match="expected JSON with the table in structures"):
        anatomy_from_label_info(String(data=text))
    with pytest.raises(AnatomyError):
        anatomy_from_label_info(String(data='{"structures": [1]}'))


def test_the_trace_ties_a_result_to_its_volume_and_to_what_made_it(volume):
    message = volume_message(volume, Time(sec=12, nanosec=5))
    made_by = MadeBy("0123456789abcdef", "openvino", "bf16", "cpu", 2, ("auto",), "full", None, 128**3)
    row = json.loads(trace_message(made_by, message).data)
    assert row["stamp"] == {"sec": 12, "nanosec": 5}
    assert row["frame_id"] == volume.frame_id
    assert row["volume_sha256"] == hashlib.sha256(bytes(message.data)).hexdigest()
    assert MadeBy.from_json(trace_message(made_by, message).data) == made_by
    assert row["version"] == threedme_ros.__version__
