"""What OpenIGTLink messages carry <-> Volume, matrices and meshes. pyigtl's message classes do the bytes.

OpenIGTLink speaks millimetres. An IMAGE places the *centre* of its volume; a Volume's affine places its first voxel.
"""

from __future__ import annotations

import hashlib
import math
import struct

import numpy as np

from threedme_ros.formats.voxel_block import VoxelBlock, checked_shape, storable
from threedme_ros.igtl.wire import ContentError, Frame, require_pyigtl
from threedme_ros.volume import LPS_FROM_RAS, MM_PER_M, Volume

MAX_DEVICE_BYTES = 20
_IMAGE = struct.Struct(">HBBBB3H12f3H3H")  # version, components, scalar, endian, coordinates, size, matrix, subvolume
_TRANSFORM_BYTES = 12 * 4
_SCALARS = {2: "i1", 3: "u1", 4: "i2", 5: "u2", 6: "i4", 7: "u4", 10: "f4", 11: "f8"}
_ENDIAN = {1: ">", 2: "<"}
_COORDINATES = {1: "RAS", 2: "LPS"}


def volume_from_image(frame: Frame, *, frame_id: str, max_voxels: int) -> Volume:
    """An IMAGE of one scalar a voxel and at least two slices; the voxels are a view of ``frame``, native-endian.

    Raises ContentError or VolumeError; nothing is read that the 72-byte image header does not account for.
    """
    content = frame.content
    if len(content) < _IMAGE.size:
        raise ContentError(f"IMAGE of {len(content)} bytes: its header takes {_IMAGE.size}")
    _, components, scalar, endian, coordinates, *numbers = _IMAGE.unpack(content[: _IMAGE.size])
    size, start, part = numbers[:3], numbers[15:18], numbers[18:21]
    if components != 1 or scalar not in _SCALARS:
        raise ContentError(f"IMAGE of {components} components of scalar type {scalar}: expected 1, of {list(_SCALARS)}")
    if endian not in _ENDIAN or coordinates not in _COORDINATES:
        raise ContentError(f"IMAGE endian {endian}, coordinates {coordinates}: expected 1 or 2 (big, little; RAS, LPS)")
    shape = checked_shape(tuple(size), max_voxels)
    if start != [0, 0, 0] or part != size:
        raise ContentError(f"IMAGE with a subvolume of {part} at {start}: expected all of {size}")
    if min(shape) < 2:
        raise ContentError(f"IMAGE of {shape} voxels, a single slice: expected a volume")
    dtype = np.dtype(_SCALARS[scalar]).newbyteorder(_ENDIAN[endian])
    expected = _IMAGE.size + math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        raise ContentError(f"IMAGE of {len(content)} bytes: {shape} voxels of {dtype} make {expected}")
    image = _unpacked(frame)
    with np.errstate(over="ignore", invalid="ignore"):
        affine = image.ijk_to_world_matrix if coordinates == 1 else LPS_FROM_RAS @ image.ijk_to_world_matrix
    voxels = image.image.T  # (k, j, i) -> (i, j, k)
    if not voxels.dtype.isnative:
        voxels = voxels.astype(dtype.newbyteorder("="), order="F")
    return Volume(voxels, VoxelBlock(shape, voxels.dtype, affine).affine, frame_id)


def image_bytes(volume: Volume, device: str, stamp_s: float) -> bytes:
    """An IMAGE in RAS, which receivers that ignore the coordinate flag assume, too. ContentError if it has no type."""
    voxels = storable(volume.voxels)
    if np.dtype(voxels.dtype.str[1:]) not in map(np.dtype, _SCALARS.values()) or max(voxels.shape) > 0xFFFF:
        raise ContentError(f"voxels {voxels.shape} of {voxels.dtype}: OpenIGTLink has {list(_SCALARS.values())}")
    message = require_pyigtl().ImageMessage(
        voxels.T,  # (i, j, k) -> (k, j, i)
        ijk_to_world_matrix=volume.affine,
        world_coordinate_system="ras",
        timestamp=stamp_s,
        device_name=checked_device(device),
    )
    return message.pack()


def matrix_from_transform(frame: Frame) -> np.ndarray:
    """A TRANSFORM's (4, 4), mm, as it came. Raises ContentError."""
    if len(frame.content) != _TRANSFORM_BYTES:
        raise ContentError(f"TRANSFORM of {len(frame.content)} bytes: expected {_TRANSFORM_BYTES}")
    return np.array(_unpacked(frame).matrix, np.float64)


def transform_bytes(matrix_mm: np.ndarray, device: str, stamp_s: float) -> bytes:
    """A TRANSFORM of ``matrix_mm`` (4, 4)."""
    message = require_pyigtl().TransformMessage(matrix_mm, timestamp=stamp_s, device_name=checked_device(device))
    return message.pack()


def polydata_bytes(vertices_m: np.ndarray, faces: np.ndarray, device: str, stamp_s: float) -> bytes:
    """A POLYDATA of triangles: ``vertices_m`` (V, 3) RAS+ m, sent in mm; ``faces`` (F, 3). Both empty: it is gone."""
    cells = np.empty((len(faces), 4), np.uint32)
    cells[:, 0], cells[:, 1:] = 3, np.reshape(faces, (-1, 3))
    message = require_pyigtl().PolyDataMessage(
        points=np.asarray(vertices_m, np.float64).reshape(-1, 3) * MM_PER_M,
        polygons=cells.ravel(),
        timestamp=stamp_s,
        device_name=checked_device(device),
    )
    return message.pack()


def device_for(structure: str) -> str:
    """A device name for any structure: its own, or where that is too long its start and a digest, always the same."""
    if len(structure.encode()) <= MAX_DEVICE_BYTES:
        return structure
    return f"{structure.encode()[:14].decode(errors='ignore')}~{hashlib.sha256(structure.encode()).hexdigest()[:5]}"


def checked_device(name: str) -> str:
    """A device name must fit its 20 bytes whole: two names that differ only behind would become one."""
    if not name or len(name.encode()) > MAX_DEVICE_BYTES:
        raise ContentError(f"device name {name!r}: expected 1 to {MAX_DEVICE_BYTES} bytes")
    return name


def _unpacked(frame: Frame):
    """pyigtl's message; the content comes without an extended header, so it is announced as version 1."""
    header = frame.header
    fields = {
        "header_version": 1,
        "message_type": header.type,
        "device_name": header.device,
        "timestamp": header.stamp_ns / 1e9,
    }
    message = require_pyigtl().MessageBase.create_message(header.type)
    try:
        message.unpack(fields, frame.content)
    except (ValueError, struct.error, NotImplementedError) as error:
        raise ContentError(f"{header.type}: {error}") from error
    return message
