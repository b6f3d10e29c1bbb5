"""MetaImage (.mha, and .mhd with its voxels in a second file) as bytes; written by ITK, read here.

The voxels' file, where a header names one, is opened by `threedme_ros.volume_io`, and only in the header's own folder.
"""

from __future__ import annotations

import zlib

import numpy as np

from threedme_ros.formats.gzip_stream import MAX_RATIO
from threedme_ros.formats.voxel_block import VoxelBlock, checked_shape
from threedme_ros.volume import LPS_FROM_RAS, Volume, VolumeIOError

MAX_HEADER_BYTES = 1 << 16
LOCAL = "LOCAL"
_LAST = "ElementDataFile"
_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}  # fmt: skip
_SYNONYMS = {
    "BinaryDataByteOrderMSB": "ElementByteOrderMSB", "Position": "Offset", "Origin": "Offset",
    "Rotation": "TransformMatrix", "Orientation": "TransformMatrix",
}  # fmt: skip
_INPUT_STEP, _OUTPUT_STEP = 1 << 16, 1 << 20


def decode(data: memoryview, max_voxels: int, frame_id: str, voxels: memoryview | None = None) -> Volume:
    """``data``: a whole .mha, or an .mhd and then ``voxels``, the whole of its second file. Raises VolumeError."""
    fields, offset = read_fields(data)
    block = _read_block(fields, max_voxels)
    if (fields[_LAST] == LOCAL) != (voxels is None):
        raise VolumeIOError(
            f"MetaImage ElementDataFile {fields[_LAST][:60]!r}: expected the voxels in this file, LOCAL"
        )
    stored, start = (data, offset) if voxels is None else (voxels, 0)
    if _flag(fields, "CompressedData", False):
        return block.volume(_inflated(stored[start:], block.nbytes), 0, frame_id)
    return block.volume(stored, start, frame_id)


def read_fields(data: memoryview) -> tuple[dict[str, str], int]:
    """The ``Key = value`` lines up to ElementDataFile, synonyms under one name, and where the next byte is."""
    head = bytes(data[:MAX_HEADER_BYTES])
    fields: dict[str, str] = {}
    at = 0
    while _LAST not in fields:
        end = head.find(b"\n", at)
        if end < 0:
            raise VolumeIOError(f"not MetaImage: no line {_LAST} within {len(head)} bytes")
        line = head[at:end].decode("utf-8", "replace").strip()
        at = end + 1
        if not line or line.startswith("#"):
            continue
        name, equals, value = (part.strip() for part in line.partition("="))
        name = _SYNONYMS.get(name, name)
        if not equals or name in fields:
            raise VolumeIOError(f"not MetaImage: line {line[:60]!r}: expected `Key = value`, each key once")
        fields[name] = value
    return fields, at


def _read_block(fields: dict[str, str], max_voxels: int) -> VoxelBlock:
    if "ElementSize" in fields:  # as ITK does: the size of a voxel is its spacing where no spacing is given
        fields = {"ElementSpacing": fields["ElementSize"]} | fields
    for name in ("NDims", "DimSize", "ElementSpacing", "ElementType"):
        if name not in fields:
            raise VolumeIOError(f"not MetaImage: no {name}: expected it, to place the volume")
    if fields.get("ObjectType", "Image") != "Image":
        raise VolumeIOError(f"not MetaImage: ObjectType {fields['ObjectType'][:40]!r}: expected Image")
    if fields.get("ElementNumberOfChannels", "1") != "1":
        raise VolumeIOError(f"MetaImage of {fields['ElementNumberOfChannels'][:20]} values a voxel: expected one")
    if not _flag(fields, "BinaryData", True) or fields.get("HeaderSize", "0") != "0":
        raise VolumeIOError("MetaImage as text, or with HeaderSize: expected binary voxels right behind the header")
    code = _TYPES.get(fields["ElementType"])
    if code is None:
        raise VolumeIOError(f"MetaImage ElementType {fields['ElementType'][:40]!r}: expected a real scalar")
    rank = _numbers(fields, "NDims", int, 1)[0]
    if not 1 <= rank <= 7:
        raise VolumeIOError(f"MetaImage of {rank} dimensions: expected 3")
    shape = checked_shape(tuple(_numbers(fields, "DimSize", int, rank)), max_voxels)
    if code[1] != "1" and "ElementByteOrderMSB" not in fields:
        raise VolumeIOError("MetaImage without ElementByteOrderMSB: expected True or False")
    order = ">" if _flag(fields, "ElementByteOrderMSB", False) else "<"
    axes = np.eye(rank)  # one a row, along the voxels' first axis first
    if "TransformMatrix" in fields:
        axes = np.reshape(_numbers(fields, "TransformMatrix", float, rank * rank), (rank, rank))
    spacing = _numbers(fields, "ElementSpacing", float, rank)
    if not all(0 < s < np.inf for s in spacing):
        raise VolumeIOError(f"MetaImage ElementSpacing {fields['ElementSpacing'][:60]!r}: expected positive mm")
    affine = np.eye(4)
    affine[:3, 3] = _numbers(fields, "Offset", float, rank)[:3] if "Offset" in fields else 0
    with np.errstate(all="ignore"):  # what overflows or is no number is refused as such
        affine[:3, :3] = axes[:3, :3].T * spacing[:3]
        affine = LPS_FROM_RAS @ affine
    return VoxelBlock(shape, np.dtype(code).newbyteorder(order), affine)


def _flag(fields: dict[str, str], name: str, default: bool) -> bool:
    value = fields.get(name, str(default)).lower()
    if value not in ("true", "false"):
        raise VolumeIOError(f"MetaImage {name} {value[:20]!r}: expected True or False")
    return value == "true"


def _numbers(fields: dict[str, str], name: str, kind: type, count: int) -> list:
    try:
        values = [kind(text) for text in fields[name].split()]
    except ValueError:
        values = []
    if len(values) != count:
        raise VolumeIOError(f"MetaImage {name} {fields[name][:60]!r}: expected {count} numbers")
    return values


def _inflated(data: memoryview, size: int) -> bytearray:
    """Exactly ``size`` bytes out of one zlib stream."""
    if size > len(data) * MAX_RATIO:
        raise VolumeIOError(f"truncated: {size} bytes claimed, {len(data)} compressed bytes cannot hold them")
    inflate, out = zlib.decompressobj(47), bytearray(size)  # zlib's wrapper, or gzip's
    filled = 0
    try:
        for start in range(0, len(data), _INPUT_STEP):  # small pieces: zlib copies what it has not yet consumed
            rest = data[start : start + _INPUT_STEP]
            while rest and not inflate.eof and filled <= size:
                piece = inflate.decompress(rest, min(size + 1 - filled, _OUTPUT_STEP))  # one more shows that there are
                out[filled : filled + len(piece)] = piece[: size - filled]
                filled, rest = filled + len(piece), inflate.unconsumed_tail
            if inflate.eof or filled > size:
                break
    except zlib.error as error:
        raise VolumeIOError(f"damaged zlib stream: {error}") from error
    if filled != size or not inflate.eof:
        found = f"{size}+" if filled > size else filled
        raise VolumeIOError(f"MetaImage compressed data of {found} bytes: expected {size}, all there")
    return out
