"""Single-file NIfTI-1 and NIfTI-2 as bytes."""

from __future__ import annotations

import struct

import numpy as np
from nibabel import Nifti1Header, Nifti2Header
from nibabel.spatialimages import HeaderDataError

from threedme_ros.formats.gzip_stream import GZIP_MAGIC, GzipStream
from threedme_ros.formats.voxel_block import VoxelBlock, checked_shape, fill_fortran, storable
from threedme_ros.volume import Grid, Volume, VolumeIOError

MAX_EXTENSION_BYTES = 1 << 24
"""Room for header extensions before the voxels; real ones hold some kilobytes."""
QFORM_TOLERANCE_MM = 1e-3
_HEADERS = {348: (Nifti1Header, b"n+1\0", 352), 540: (Nifti2Header, b"n+2\0\r\n\x1a\n", 544)}
_SCALARS = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_REFUSED = {1: "1-bit", 32: "complex", 128: "RGB", 1536: "float128", 1792: "complex", 2048: "complex", 2304: "RGBA"}
_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""xyzt_units & 7 -> mm: unknown (read as mm, like everyone), metre, millimetre, micron."""


def decode(data: memoryview, max_voxels: int, frame_id: str) -> Volume:
    """``data`` is a whole file. The voxels are a view of it, unless scaled or big-endian. Raises VolumeError."""
    if bytes(data[:2]) == GZIP_MAGIC:
        raise VolumeIOError("gzipped data where plain NIfTI was announced: expected format 'nifti; gzip'")
    block, offset = _read_header(bytes(data[:540]), max_voxels)
    return block.volume(data, offset, frame_id)


def decode_gzip(data: memoryview, max_voxels: int, frame_id: str) -> Volume:
    """The same for a gzipped file, expanded to exactly the size its own, already checked, header claims."""
    stream = GzipStream(data)
    head = stream.read(348)
    if 540 in (int.from_bytes(head[:4], order) for order in ("little", "big")):
        head += stream.read(540 - 348)
    block, offset = _read_header(bytes(head), max_voxels)
    stream.read(offset - len(head))
    voxels = stream.read(block.nbytes)
    stream.finish()
    return block.volume(voxels, 0, frame_id)


def encode(volume: Volume, description: str = "") -> bytearray:
    """A NIfTI-1 file (NIfTI-2 past 32767 voxels along an axis), little-endian, mm, codes "scanner".

    The sform holds the affine in float32, exactly if it was decoded by this package; the qform says the same wherever
    a rotation and three spacings can (no shear). bool becomes uint8, float16 float32. The voxels are copied once.
    description: the header's ``descrip``, at most 79 bytes.
    """
    voxels = storable(volume.voxels)
    size = 540 if max(volume.shape) > 32767 else 348
    header_class, _, offset = _HEADERS[size]
    header = header_class(endianness="<")
    header.set_data_shape(voxels.shape)
    header.set_data_dtype(voxels.dtype)
    header["magic"] = _HEADERS[size][1]
    header["vox_offset"] = offset
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["descrip"] = description.encode()[:79]
    header.set_xyzt_units("mm")
    header.set_qform(volume.affine, code="scanner")
    if not Grid(volume.shape, header.get_qform()).matches(volume.grid, QFORM_TOLERANCE_MM):
        header.set_qform(None, code="unknown")
    header.set_sform(volume.affine, code="scanner")
    out = bytearray(offset + voxels.nbytes)
    out[:size] = header.binaryblock
    fill_fortran(out, offset, voxels)
    return out


def _read_header(head: bytes, max_voxels: int) -> tuple[VoxelBlock, int]:
    """The voxels a header describes, and their offset in the file."""
    header, first_offset = _parse(head)
    rank = int(header["dim"][0])
    if not 1 <= rank <= 7:
        raise VolumeIOError(f"NIfTI of {rank} dimensions: expected 3")
    shape = checked_shape(tuple(header["dim"][1 : rank + 1]), max_voxels)
    code = int(header["datatype"])
    if code not in _SCALARS:
        raise VolumeIOError(f"NIfTI datatype {code} ({_REFUSED.get(code, 'unknown')}): expected real scalars")
    dtype = np.dtype(_SCALARS[code]).newbyteorder(header.endianness)
    if int(header["bitpix"]) != dtype.itemsize * 8:
        raise VolumeIOError(f"NIfTI bitpix {int(header['bitpix'])} for datatype {code}: expected {dtype.itemsize * 8}")
    offset = float(header["vox_offset"])
    if not first_offset <= offset <= first_offset + MAX_EXTENSION_BYTES or offset != int(offset):
        raise VolumeIOError(f"NIfTI vox_offset {offset}: expected {first_offset} or a little more")
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or np.isnan(slope):  # the standard's "no scaling"
        slope, inter = 1.0, 0.0
    with np.errstate(all="ignore"):
        scaling = np.array((slope, inter), np.float32)  # what voxels are scaled with; NIfTI-2 has them in float64
    if not np.isfinite(scaling).all() or scaling[0] == 0:
        raise VolumeIOError(
            f"NIfTI scl_slope {slope:g}, scl_inter {inter:g}: expected finite numbers in float32, the slope not 0"
        )
    with np.errstate(all="ignore"):  # whatever overflows or is no number is refused as such
        affine = _affine_mm(header)
    return VoxelBlock(shape, dtype, affine, slope, inter), int(offset)


def _parse(head: bytes) -> tuple[Nifti1Header, int]:
    if len(head) < 348:
        raise VolumeIOError(f"truncated: {len(head)} bytes, a NIfTI header takes 348")
    for endianness in "<>":
        (size,) = struct.unpack(f"{endianness}i", head[:4])
        if size not in _HEADERS:
            continue
        header_class, magic, first_offset = _HEADERS[size]
        if len(head) < size:
            raise VolumeIOError(f"truncated: {len(head)} bytes, a NIfTI-2 header takes 540")
        found = head[344:348] if size == 348 else head[4:12]
        if found != magic:
            pair = " (a header without its voxels)" if found[:3] in (b"ni1", b"ni2") else ""
            raise VolumeIOError(f"NIfTI magic {found!r}{pair}: expected {magic!r}, a single-file NIfTI")
        return header_class(head[:size], endianness=endianness, check=False), first_offset
    raise VolumeIOError(f"not NIfTI: header size {int.from_bytes(head[:4], 'little')}, expected 348 or 540")


def _affine_mm(header: Nifti1Header) -> np.ndarray:
    """sform, else qform; a file with neither does not say where the patient is, and is refused."""
    unit = int(header["xyzt_units"]) & 7
    if unit not in _MM:
        raise VolumeIOError(f"NIfTI spatial unit code {unit}: expected metre, mm or micron")
    if int(header["sform_code"]) > 0:
        affine = header.get_sform()
    elif int(header["qform_code"]) > 0:
        if header["pixdim"][0] == 0:  # the standard reads it as 1
            header["pixdim"][0] = 1
        try:
            affine = header.get_qform()
        except (HeaderDataError, ValueError) as error:
            raise VolumeIOError(f"NIfTI qform is no rotation: {error}") from error
    else:
        raise VolumeIOError("no geometry: sform_code and qform_code are both 0, expected one to place the volume")
    affine = np.array(affine, np.float64)
    affine[:3] *= _MM[unit]
    return affine
