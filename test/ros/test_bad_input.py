"""Every item of bad input, over DDS, against one running node that must outlive them all."""

import gzip
import struct

import numpy as np
import pytest

pytest.importorskip("rclpy")
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from nibabel import Nifti1Image
from perceiving import Perceiving, next_stamp
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from threedme_ros.nodes.event_log import parse_log_line
from threedme_ros.nodes.messages import byte_array
from threedme_ros.phantom import phantom
from threedme_ros.volume_io import volume_to_bytes

MAX_VOXELS = 100_000
IMAGE = phantom((20, 16, 18), (18.0, 16.0, 24.0))[0]


def nifti(voxels: np.ndarray, affine: np.ndarray = IMAGE.affine) -> bytes:
    return Nifti1Image(voxels, affine).to_bytes()


def patched(data: bytes, offset: int, layout: str, *values) -> bytes:
    data = bytearray(data)
    struct.pack_into(layout, data, offset, *values)
    return bytes(data)


def nrrd(**fields: str) -> bytes:
    """A NRRD of IMAGE with header fields replaced or, with None, left out."""
    head, _, body = bytes(volume_to_bytes(IMAGE, "nrrd")).partition(b"\n\n")
    lines = []
    for line in head.decode().splitlines():
        key = line.split(":")[0].replace(" ", "_")
        lines.append(f"{line.split(':')[0]}: {fields[key]}" if key in fields else line)
    return "\n".join(lines).encode() + b"\n\n" + body


GOOD = bytes(volume_to_bytes(IMAGE))
COLOUR = np.zeros(IMAGE.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])
SROW_X = 280  # offset of the affine in a NIfTI-1 header: three rows of four float32
NAN = float("nan")
SINGULAR = [[4, 0, 0, 0], [8, 0, 0, 0], [0, 0, 6, 0]]

BAD = {
    "zero stamp": ({"stamp": Time()}, "header.stamp 0.000000000: expected"),
    "empty frame": ({"frame_id": ""}, "header.frame_id '': expected"),
    "unknown format": ({"format": "jpeg"}, "format 'jpeg': expected one of"),
    "nothing": ({"data": b""}, "truncated: 0 bytes"),
    "random bytes": ({"data": np.random.default_rng(0).bytes(5000)}, "not NIfTI: header size"),
    "truncated NIfTI header": ({"data": GOOD[:200]}, "truncated: 200 bytes"),
    "truncated NIfTI": ({"data": GOOD[:-100]}, "truncated: header claims 11520 bytes of voxels, 11420 are there"),
    "NIfTI that claims more than it holds": (
        {"data": patched(GOOD, 40, "<4h", 3, 40, 40, 40)},
        "truncated: header claims 128000 bytes of voxels, 11520 are there",
    ),
    "NIfTI with a negative size": (
        {"data": patched(GOOD, 40, "<4h", 3, -20, 16, 18)},
        "dimensions (-20, 16, 18): expected at least one voxel",
    ),
    "truncated gzip": ({"data": gzip.compress(GOOD)[:-2000], "format": "nifti; gzip"}, "truncated: gzip stream"),
    "gzip that is none": ({"data": GOOD, "format": "nifti; gzip"}, "not gzip"),
    "gzip that expands without end": (
        {"data": gzip.compress(GOOD + bytes(50_000_000)), "format": "nifti; gzip"},
        "trailing data: gzip expands past the size the header claims",
    ),
    "truncated NRRD": (
        {"data": nrrd()[:-100], "format": "nrrd"},
        "truncated: header claims 11520 bytes of voxels, 11420 are there",
    ),
    "NRRD that claims more than it holds": (
        {"data": nrrd(sizes="40 40 40"), "format": "nrrd"},
        "truncated: header claims 128000 bytes of voxels, 11520 are there",
    ),
    "NRRD that names another file": (
        {"data": nrrd(encoding="raw\ndata file: /etc/passwd"), "format": "nrrd"},
        "detached data file '/etc/passwd': expected the voxels attached",
    ),
    "non-finite affine": ({"data": patched(GOOD, SROW_X, "<f", NAN)}, "expected finite numbers"),
    "singular affine": ({"data": patched(GOOD, SROW_X, "<12f", *np.ravel(SINGULAR))}, "singular affine"),
    "4-D": ({"data": nifti(np.stack([IMAGE.voxels] * 2, -1))}, "4-D image of (20, 16, 18, 2): expected 3-D"),
    "RGB": ({"data": nifti(COLOUR)}, "(RGB): expected real scalars"),
    "complex": ({"data": nifti(IMAGE.voxels.astype(np.complex64))}, "(complex): expected real scalars"),
    "too many voxels": (
        {"data": nifti(np.zeros((50, 50, 50), np.int16))},
        "(50, 50, 50) is 125000, the limit is 100000",
    ),
    "too many voxels, claimed": (
        {"data": patched(GOOD, 40, "<4h", 3, 30000, 30000, 30000)},
        "(30000, 30000, 30000) is 27000000000000, the limit is 100000",
    ),
    "constant volume": (
        {"data": nifti(np.full(IMAGE.shape, -1000, np.int16))},
        "every voxel is -1000: expected an image",
    ),
    "voxel that is no number": (
        {"data": nifti(np.where(IMAGE.voxels > 300, NAN, IMAGE.voxels))},
        "expected finite numbers",
    ),
}


@pytest.fixture(scope="module")
def node(domain, random_checkpoint) -> Perceiving:
    process = domain.start(
        "perception", checkpoint=random_checkpoint, engine="torch", threads=1, max_faces=200, max_voxels=MAX_VOXELS
    )
    node = Perceiving(domain, process, "/perception")
    node.wait_for_subscription()
    node.segment(IMAGE)
    return node


@pytest.mark.parametrize(("change", "reason"), BAD.values(), ids=BAD.keys())
def test_bad_volume_is_refused_and_the_next_good_one_segmented(node, domain, change, reason):
    refused, results = node.count("refused"), {topic: len(m) for topic, m in node.received.items()}
    header = Header(stamp=change.get("stamp", next_stamp()), frame_id=change.get("frame_id", "patient"))
    message = CompressedImage(header=header, format=change.get("format", "nifti"))
    message.data = byte_array(change.get("data", GOOD))
    node.send(message)
    domain.spin_until(lambda: node.count("refused") == refused + 1, what="not refused")

    said = node.diagnostics
    assert reason in said["last_error"]
    assert "\n" not in said["last_error"]
    assert (said["level"], said["anatomy"]) == (DiagnosticStatus.WARN, "stale")
    repeated = {"anatomy/obstacles"}  # on a timer: the last good ones
    assert {t: len(m) for t, m in node.received.items() if t not in repeated} == {
        t: n for t, n in results.items() if t not in repeated
    }
    assert node.last("anatomy/obstacles").header.stamp == node.last("labels").header.stamp

    node.segment(IMAGE)
    assert (node.diagnostics["anatomy"], node.count("refused")) == ("current", refused + 1)


def test_node_outlived_it_all_and_counted_everything(node):
    outcomes = ("segmented", "refused", "failed", "replaced", "ignored")
    assert node.count("seen") == sum(node.count(what) for what in outcomes)
    assert node.count("failed") == 0
    assert node.process.interrupt() == 0
    output = node.process.output()
    assert "Traceback" not in output
    lines = [parse_log_line(line) for line in output.splitlines()]
    refused = [line for line in lines if line.get("event") == "volume_refused"]
    assert sum(int(line.get("suppressed", 1)) for line in refused) == node.count("refused")
