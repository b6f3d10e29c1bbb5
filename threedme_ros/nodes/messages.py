"""Volume <-> sensor_msgs/CompressedImage, the overlay image and `label_info`: the messages of DESIGN section 3.

A volume message carries one whole medical file in ``data`` (`threedme_ros.volume_io.FORMATS`), its acquisition time in
``header.stamp`` and the patient frame in ``header.frame_id``.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from dataclasses import asdict
from functools import cache

import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header, String

from threedme_ros import __version__
from threedme_ros.anatomy import Anatomy
from threedme_ros.documents import parse_json
from threedme_ros.inference.made_by import MadeBy
from threedme_ros.volume import Volume, VolumeError
from threedme_ros.volume_io import DEFAULT_MAX_VOXELS, FORMATS, volume_from_bytes, volume_to_bytes

NOTICE = "for demonstration only, not for clinical use"


class MessageError(VolumeError):
    """A message breaks the contract; the text names the value and what was expected."""


def byte_array(buffer: bytes | bytearray | memoryview) -> array:
    """The one type rclpy takes for ``uint8[]`` without a copy or a check of every element.

    Measured for 16.8 MB: 2 ms, where a list takes 410, a memoryview 540 and a numpy array 970.
    """
    data = array("B")
    data.frombytes(buffer)
    return data


MAX_FRAME_ID = 255
"""Every result and many log lines carry it: it must neither fill the memory nor forge a line."""


def check_volume_header(message: CompressedImage) -> None:
    """What can be refused without reading ``data``: MessageError on a zero stamp, an empty frame, another format."""
    stamp = message.header.stamp
    if stamp.sec < 0 or (stamp.sec, stamp.nanosec) == (0, 0):
        raise MessageError(f"header.stamp {stamp.sec}.{stamp.nanosec:09d}: expected the acquisition time, above zero")
    if not message.header.frame_id:
        raise MessageError("header.frame_id '': expected the name of the patient frame")
    frame_id = message.header.frame_id
    if len(frame_id) > MAX_FRAME_ID or not frame_id.isprintable():
        raise MessageError(f"header.frame_id {frame_id[:40]!r}: expected at most {MAX_FRAME_ID} printable characters")
    if message.format not in FORMATS:
        raise MessageError(f"format {message.format[:80]!r}: expected one of {list(FORMATS)}")


def volume_from_message(message: CompressedImage, *, max_voxels: int = DEFAULT_MAX_VOXELS) -> Volume:
    """The volume in ``message``, in its frame; plain NIfTI voxels stay a view of ``message.data``.

    Raises MessageError for the header, VolumeIOError or VolumeError for the data.
    """
    check_volume_header(message)
    data = np.frombuffer(message.data, np.uint8)
    return volume_from_bytes(data, message.format, frame_id=message.header.frame_id, max_voxels=max_voxels)


def volume_message(volume: Volume, stamp, format: str = "nifti", description: str = "") -> CompressedImage:
    """``volume`` as a message; stamp: builtin_interfaces/Time; frame_id: the volume's. description: in the file."""
    header = Header(stamp=stamp, frame_id=volume.frame_id)
    message = CompressedImage(header=header, format=format)
    message.data = byte_array(volume_to_bytes(volume, format, description))
    return message


def image_message(rgb: np.ndarray, header: Header) -> Image:
    """``rgb`` (H, W, 3) uint8 as an rgb8 image, by cv_bridge where it works with the numpy at hand."""
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise MessageError(f"image of shape {rgb.shape} and type {rgb.dtype}: expected (H, W, 3) uint8")
    bridge = _cv_bridge()
    message = bridge.cv2_to_imgmsg(rgb, "rgb8") if bridge else plain_image(rgb)
    message.header = header
    return message


def plain_image(rgb: np.ndarray) -> Image:
    """The same message as cv_bridge's, built by hand."""
    height, width = rgb.shape[:2]
    message = Image(height=height, width=width, encoding="rgb8", step=width * 3)
    message.data = byte_array(np.ascontiguousarray(rgb).tobytes())
    return message


@cache
def _cv_bridge():
    """A cv_bridge that works here, or None: apt's is built against numpy 1 and PyPI's calls what numpy 2.3 removed."""
    probe = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    try:
        from cv_bridge import CvBridge

        bridge = CvBridge()
        return bridge if bridge.cv2_to_imgmsg(probe, "rgb8") == plain_image(probe) else None
    except Exception:  # an ABI mismatch surfaces as ImportError, AttributeError, RuntimeError or SystemError
        return None


def label_info_message(anatomy: Anatomy, engine: dict) -> String:
    """What the values in `labels` mean, as JSON: ``structures`` (id, name, colour, margin_mm, role), ``notice``,
    and everything of ``engine`` (checkpoint hash, engine, precision, device)."""
    return String(data=json.dumps({"notice": NOTICE, **engine, "structures": [asdict(s) for s in anatomy]}))


def trace_message(made_by: MadeBy, message: CompressedImage) -> String:
    """What made the results of the volume in ``message``, as JSON: everything of `MadeBy`, ``stamp`` (sec, nanosec) and
    ``frame_id`` of the volume, ``volume_sha256`` of its ``data``, and the version of this package."""
    header = message.header
    row = {
        "stamp": {"sec": header.stamp.sec, "nanosec": header.stamp.nanosec},
        "frame_id": header.frame_id,
        "volume_sha256": volume_digest(message),
        **asdict(made_by),
        "version": __version__,
    }
    return String(data=json.dumps(row))


def volume_digest(message: CompressedImage) -> str:
    """SHA-256 of ``data``, in hex: 10 ms for 16.8 MB where the processor helps."""
    return hashlib.sha256(message.data).hexdigest()


def anatomy_from_label_info(message: String) -> Anatomy:
    """The table in a `label_info` message; MessageError or AnatomyError for any other text."""
    try:
        rows = json.dumps(parse_json(message.data)["structures"])
    except (ValueError, KeyError, TypeError) as error:
        raise MessageError(f"label_info {message.data[:80]!r}: expected JSON with the table in structures") from error
    return Anatomy.from_json(rows)
