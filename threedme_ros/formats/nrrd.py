"""NRRD with an attached header, raw or gzip encoded, as bytes. A data file named inside a message is never opened."""

from __future__ import annotations

import re

import numpy as np

from threedme_ros.formats.gzip_stream import GzipStream
from threedme_ros.formats.voxel_block import VoxelBlock, checked_shape, fill_fortran, storable
from threedme_ros.volume import LPS_FROM_RAS, Volume, VolumeIOError

MAX_HEADER_BYTES = 1 << 16
_TYPES = {
    "i1": "signed char|int8|int8_t",
    "u1": "uchar|unsigned char|uint8|uint8_t",
    "i2": "short|short int|signed short|signed short int|int16|int16_t",
    "u2": "ushort|unsigned short|unsigned short int|uint16|uint16_t",
    "i4": "int|signed int|int32|int32_t",
    "u4": "uint|unsigned int|uint32|uint32_t",
    "i8": "longlong|long long|long long int|signed long long|signed long long int|int64|int64_t",
    "u8": "ulonglong|unsigned long long|unsigned long long int|uint64|uint64_t",
    "f4": "float",
    "f8": "double",
}
_DTYPES = {name: code for code, names in _TYPES.items() for name in names.split("|")}
_NAMES = {"i1": "int8", "u1": "uint8", "i2": "int16", "u2": "uint16", "i4": "int32", "u4": "uint32"}
_NAMES |= {"i8": "int64", "u8": "uint64", "f4": "float", "f8": "double"}
_SPACES = {"right-anterior-superior": (1, 1), "left-anterior-superior": (-1, 1), "left-posterior-superior": (-1, -1)}
_SPACES |= {"ras": (1, 1), "las": (-1, 1), "lps": (-1, -1)}
"""Signs that bring x and y to RAS+."""
_MM = {"mm": 1.0, "millimeter": 1.0, "m": 1000.0, "meter": 1000.0, "um": 0.001, "µm": 0.001, "micron": 0.001}
_VECTOR = re.compile(r"none|\(([^()]*)\)")


def decode(data: memoryview, max_voxels: int, frame_id: str) -> Volume:
    """``data`` is a whole file. Raw voxels are a view of it. Raises VolumeError."""
    fields, offset = _read_fields(data)
    block = _read_block(fields, max_voxels)
    encoding = fields["encoding"].lower()
    if encoding == "raw":
        return block.volume(data, offset, frame_id)
    if encoding not in ("gzip", "gz"):
        raise VolumeIOError(f"NRRD encoding {encoding!r}: expected raw or gzip")
    stream = GzipStream(data[offset:])
    voxels = stream.read(block.nbytes)
    stream.finish()
    return block.volume(voxels, 0, frame_id)


def encode(volume: Volume, description: str = "") -> bytearray:
    """Raw, little-endian, LPS as 3D Slicer and ITK write it; the affine in full precision. One copy of the voxels.

    description: the header's ``content``, one line of ASCII.
    """
    voxels = storable(volume.voxels)
    affine = LPS_FROM_RAS @ volume.affine + 0.0  # no "-0.0" in the text
    vectors = ["(" + ",".join(repr(float(x)) for x in affine[:3, axis]) + ")" for axis in range(4)]
    lines = [
        "NRRD0004",
        f"type: {_NAMES[voxels.dtype.str[1:]]}",
        "dimension: 3",
        "space: left-posterior-superior",
        "sizes: " + " ".join(str(n) for n in voxels.shape),
        "space directions: " + " ".join(vectors[:3]),
        "kinds: domain domain domain",
        "endian: little",
        "encoding: raw",
        f"space origin: {vectors[3]}",
        *([f"content: {description}"] if description else []),
    ]
    text = "\n".join(lines) + "\n#"
    text += " " * (-(len(text) + 2) % 16) + "\n\n"  # a comment aligns the voxels, so that a reader may view them
    out = bytearray(len(text) + voxels.nbytes)
    out[: len(text)] = text.encode("ascii")
    fill_fortran(out, len(text), voxels)
    return out


def _read_fields(data: memoryview) -> tuple[dict[str, str], int]:
    """The ``field: value`` lines (lower-case names) and the offset of the data."""
    head = bytes(data[:MAX_HEADER_BYTES])
    if not re.match(rb"NRRD000[1-5]\r?\n", head):
        raise VolumeIOError(f"not NRRD: starts with {head[:8]!r}, expected b'NRRD000' and a version from 1 to 5")
    end = re.search(rb"\r?\n\r?\n", head)
    if end is None:
        raise VolumeIOError(f"truncated: NRRD header does not end within {len(head)} bytes")
    fields: dict[str, str] = {}
    for line in head[: end.start()].decode("utf-8", "replace").splitlines()[1:]:
        if line.startswith("#") or ":=" in line:
            continue
        name, colon, value = line.partition(":")
        name = name.strip().lower()
        if not colon or name in fields:
            raise VolumeIOError(f"NRRD header line {line[:60]!r}: expected `field: value`, each field once")
        fields[name] = value.strip()
    return fields, end.end()


def _read_block(fields: dict[str, str], max_voxels: int) -> VoxelBlock:
    for name in ("data file", "datafile"):
        if name in fields:
            raise VolumeIOError(f"NRRD with a detached data file {fields[name][:60]!r}: expected the voxels attached")
    for name in ("type", "dimension", "sizes", "encoding", "space directions", "space origin"):
        if name not in fields:
            raise VolumeIOError(f"NRRD without `{name}`: expected it, to place the volume")
    for name in ("line skip", "lineskip", "byte skip", "byteskip"):
        if fields.get(name, "0") != "0":
            raise VolumeIOError(f"NRRD {name} {fields[name][:20]!r}: expected 0")
    code = _DTYPES.get(fields["type"].lower())
    if code is None:
        raise VolumeIOError(f"NRRD type {fields['type'][:40]!r}: expected real scalars")
    sizes = tuple(_numbers(fields["sizes"].split(), int, "sizes"))
    if fields["dimension"] != str(len(sizes)):
        raise VolumeIOError(f"NRRD dimension {fields['dimension'][:20]!r} with {len(sizes)} sizes: expected as many")
    endian = fields.get("endian", "little" if code[1] == "1" else "").lower()
    if endian not in ("little", "big"):
        raise VolumeIOError(f"NRRD endian {endian[:20]!r}: expected little or big")
    directions = _vectors(fields["space directions"], "space directions")
    if len(directions) != len(sizes):
        raise VolumeIOError(f"NRRD with {len(directions)} space directions for {len(sizes)} axes: expected as many")
    # an axis without direction (time, channel) carries nothing if it is 1 long: leave it out, the memory order stays
    order = [axis for axis, v in enumerate(directions) if v is not None]
    order += [axis for axis, v in enumerate(directions) if v is None]
    shape = checked_shape(tuple(sizes[axis] for axis in order), max_voxels)
    placed = [v for v in directions if v is not None]
    if len(placed) != 3:
        raise VolumeIOError(f"NRRD with {len(placed)} space directions other than none: expected 3")
    origin = _vectors(fields["space origin"], "space origin")
    if len(origin) != 1 or origin[0] is None:
        raise VolumeIOError(f"NRRD space origin {fields['space origin'][:60]!r}: expected one (x,y,z)")
    with np.errstate(all="ignore"):  # whatever overflows or is no number is refused as such
        affine = _to_ras_mm(fields) @ np.vstack([np.column_stack([*placed, origin[0]]), (0, 0, 0, 1)])
    return VoxelBlock(shape, np.dtype(code).newbyteorder("<" if endian == "little" else ">"), affine)


def _to_ras_mm(fields: dict[str, str]) -> np.ndarray:
    """(4, 4): the file's space -> RAS+ mm."""
    space = fields.get("space", "")
    if space.lower() not in _SPACES:
        raise VolumeIOError(f"NRRD space {space[:40]!r}: expected RAS, LAS or LPS, to tell left from right")
    units = set(re.findall(r'"([^"]*)"', fields.get("space units", '"mm"')))
    if len(units) != 1 or not units <= set(_MM):
        raise VolumeIOError(f"NRRD space units {fields.get('space units', '')[:60]!r}: expected mm, m or um")
    scale = _MM[units.pop()]
    x, y = _SPACES[space.lower()]
    return np.diag([x * scale, y * scale, scale, 1.0])


def _vectors(text: str, name: str) -> list[list[float] | None]:
    """``(1,0,0) none (0,1,0)`` -> lists of three floats, or None."""
    if _VECTOR.sub("", text).strip():
        raise VolumeIOError(f"NRRD {name} {text[:80]!r}: expected vectors (x,y,z)")
    vectors: list[list[float] | None] = []
    for match in _VECTOR.finditer(text):
        vector = None if match[0] == "none" else _numbers(match[1].split(","), float, name)
        if vector is not None and len(vector) != 3:
            raise VolumeIOError(f"NRRD {name} {match[0][:60]!r}: expected three numbers")
        vectors.append(vector)
    return vectors


def _numbers(texts: list[str], kind: type, name: str) -> list:
    try:
        return [kind(t) for t in texts]
    except ValueError as error:
        raise VolumeIOError(f"NRRD {name} {' '.join(texts)[:60]!r}: expected numbers") from error
