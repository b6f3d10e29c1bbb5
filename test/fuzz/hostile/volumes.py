"""Volumes as bytes, as files and as messages."""

from __future__ import annotations

import gzip
import io
import random
import struct
from collections.abc import Callable
from functools import partial

import numpy as np

from threedme_ros.volume import Volume, VolumeError
from threedme_ros.volume_io import read_volume, volume_from_bytes

from . import seeds, structure
from .decoder import MAX_VOXELS, Decoder, check_volume, from_file
from .mutation import Mutator, mutate_bytes, text_mutator

NIFTI_FLOATS = (16, 64)
"""Their codes in the field datatype."""
NRRD_WORDS = (
    "data file: /etc/passwd",
    "datafile: LIST",
    "line skip: 9",
    "byte skip: -1",
    "encoding: gzip",
    "encoding: hex",
)
NRRD_WORDS += (
    "sizes: 99999 99999 99999",
    "type: block",
    "none",
    "(1,0,0)",
    "space: LPS",
    "endian: big",
    "dimension: 9",
)
META_WORDS = (
    "True",
    "False",
    "CompressedData = True",
    "CompressedDataSize = 9",
    "NDims = 4",
    "HeaderSize = -1",
    "LOCAL",
)
META_WORDS += (
    "DimSize = 9 9 9",
    "MET_DOUBLE",
    "MET_LONG",
    "MET_ASCII_CHAR",
    "ElementNumberOfChannels = 3",
    "BinaryData = ",
)


def split_message(data: bytes):
    """CompressedImage: int32 sec, uint32 nanosec, lengths of frame_id and format, those texts, then ``data``."""
    from builtin_interfaces.msg import Time
    from sensor_msgs.msg import CompressedImage

    data = data.ljust(10, b"\0")
    sec, nanosec = struct.unpack_from("<iI", data)
    frame, format = data[8], data[9]
    message = CompressedImage(format=data[10 + frame : 10 + frame + format].decode("latin-1"))
    message.header.stamp = Time(sec=sec, nanosec=nanosec)
    message.header.frame_id = data[10 : 10 + frame].decode("latin-1")
    message.data = data[10 + frame + format :]
    return message


def decode_nifti(data: bytes, format: str) -> Volume:
    """AssertionError if voxels stored as integers, which are all finite, became anything else."""
    volume = volume_from_bytes(data, format, max_voxels=MAX_VOXELS)
    head = gzip.GzipFile(fileobj=io.BytesIO(data)).read(540) if format == "nifti; gzip" else data[:540]
    order, size = next((o, s) for o in "<>" for s in (348, 540) if struct.unpack_from(f"{o}i", head) == (s,))
    (code,) = struct.unpack_from(f"{order}h", head, 70 if size == 348 else 12)
    assert code in NIFTI_FLOATS or np.isfinite(volume.voxels).all()
    return volume


def decode_message(message) -> Volume:
    from threedme_ros.nodes.messages import volume_from_message

    return volume_from_message(message, max_voxels=MAX_VOXELS)


def message(data: bytes, rng: random.Random) -> bytes:
    """The volume in the message, by its format; now and then the fields before it."""
    if len(data) < 10:
        return mutate_bytes(data, rng)
    end = 10 + data[8] + data[9]
    if rng.random() < 0.1:
        return text_mutator(("nifti", "nrrd", "nifti; gzip", "jpeg"))(data[:end], rng) + data[end:]
    mutators = {b"NRRD": structure.nrrd(NRRD_WORDS), b"\x1f\x8b": structure.gzipped(structure.nifti)}
    inner: Mutator = next((m for magic, m in mutators.items() if data[end:].startswith(magic)), structure.nifti)
    return data[:end] + inner(data[end:], rng)


def decoders() -> tuple[Decoder, ...]:
    def plain(name: str, decode: Callable, mutate: Mutator) -> Decoder:
        return Decoder(name, decode, (VolumeError,), check_volume, mutate, getattr(seeds, name))

    nrrd = partial(volume_from_bytes, format="nrrd", max_voxels=MAX_VOXELS)
    return (
        plain("nifti", partial(decode_nifti, format="nifti"), structure.nifti),
        plain("nifti_gzip", partial(decode_nifti, format="nifti; gzip"), structure.gzipped(structure.nifti)),
        plain("nrrd", nrrd, structure.nrrd(NRRD_WORDS)),
        Decoder("message", decode_message, (VolumeError,), check_volume, message, seeds.message, prepare=split_message),
        from_file(
            "meta_image",
            ".mha",
            partial(read_volume, max_voxels=MAX_VOXELS),
            refusals=(VolumeError,),
            check=check_volume,
            mutate=structure.meta_image(META_WORDS),
            seeds=seeds.meta_image,
        ),
    )
