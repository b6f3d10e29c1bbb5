"""OpenIGTLink: everything a peer may send on one connection."""

from __future__ import annotations

import io

import numpy as np

from threedme_ros.igtl import content, poses
from threedme_ros.igtl.wire import ContentError, Limits, StreamError, read_frame
from threedme_ros.volume import Volume, VolumeError

from . import seeds, structure
from .decoder import MAX_VOXELS, Decoder, check_volume


def read_stream(data: bytes) -> list:
    """Everything on an OpenIGTLink connection until it breaks; a bad content costs only its message."""
    stream, decoded, refused = io.BytesIO(data), [], None

    def fill(view: memoryview, idle: bool) -> None:
        got = stream.readinto(view)
        if got != len(view):
            raise EOFError if idle and not got else StreamError("half a message, then the end")

    while True:
        try:
            frame = read_frame(fill, Limits(max_body_bytes=1 << 20), frozenset({"IMAGE", "TRANSFORM"}))
            if frame.content is not None:
                decoded.append(_content_of(frame))
        except EOFError:
            break
        except ContentError as error:
            refused = error
    if refused is not None and not decoded:
        raise refused
    return decoded


def _content_of(frame):
    if frame.header.type == "IMAGE":
        return content.volume_from_image(frame, frame_id="patient", max_voxels=MAX_VOXELS)
    names = poses.frame_names(frame.header.device, "patient")
    return poses.pose_from_matrix(content.matrix_from_transform(frame), *names)


def check_messages(decoded: list) -> None:
    for item in decoded:
        if isinstance(item, Volume):
            check_volume(item)
        else:
            assert np.isfinite(item.translation_m).all() and abs(np.linalg.norm(item.quaternion) - 1) < 1e-6


def decoders() -> tuple[Decoder, ...]:
    return (Decoder("igtl", read_stream, (VolumeError,), check_messages, structure.igtl, seeds.igtl),)
