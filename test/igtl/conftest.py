"""pyigtl is the independent peer: what it packs we must read, and what we pack it must read."""

import io

import numpy as np
import pytest

from threedme_ros.igtl.wire import Limits, read_frame

WANTED = frozenset({"IMAGE", "TRANSFORM"})


def fill_from(data: bytes):
    """The `Fill` of a stream that holds ``data`` and then ends."""
    stream = io.BytesIO(data)

    def fill(view: memoryview, idle: bool) -> None:
        if stream.readinto(view) != len(view):
            raise EOFError

    return fill


@pytest.fixture(scope="session")
def read():
    """``read(data, **limits)``: the first message of ``data``."""
    return lambda data, **limits: read_frame(fill_from(data), Limits(**limits), WANTED)


@pytest.fixture(scope="session")
def seeds() -> list[bytes]:
    """Valid messages of several types, scalars, byte orders and header versions."""
    pyigtl = pytest.importorskip("pyigtl")
    matrix = np.diag([0.5, 0.6, 2.0, 1.0])
    image = np.arange(3 * 4 * 5, dtype=np.int16).reshape(3, 4, 5)
    messages = [
        pyigtl.ImageMessage(image, matrix, "lps", 12.5, "ct"),
        pyigtl.ImageMessage(image.astype(np.float32), matrix, "ras", 12.5, "ct"),
        pyigtl.ImageMessage(image.astype(np.uint8), matrix, "lps", 12.5, "us"),
        pyigtl.TransformMessage(np.eye(4), 12.5, "ProbeToTracker"),
        pyigtl.StringMessage("hello", 12.5, "text"),
        pyigtl.PointMessage([[1.0, 2.0, 3.0]], timestamp=12.5, device_name="points"),
    ]
    with_metadata = pyigtl.ImageMessage(image, matrix, "lps", 12.5, "ct")
    with_metadata.header_version = 2
    with_metadata.metadata = {"key": "value", "Größe": "1"}
    return [message.pack() for message in (*messages, with_metadata)]
