"""Bytes and files <-> Volume: NIfTI, gzipped NIfTI, NRRD; files also as MetaImage and DICOM series.

Bytes come from a topic and are not trusted: a header is checked against the real length and ``max_voxels`` before
memory is taken, gzip expands to exactly what the checked header claims, nothing is unpickled, no path in the data is
opened. Every refusal is a VolumeError of one line; decoding raises nothing else.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from threedme_ros.formats import metaimage, nifti, nrrd
from threedme_ros.formats.voxel_block import storable
from threedme_ros.private_files import PRIVATE_FILE, replacing
from threedme_ros.volume import LPS_FROM_RAS, Volume, VolumeError, VolumeIOError

__all__ = [
    "DEFAULT_MAX_VOXELS",
    "FORMATS",
    "VolumeIOError",
    "read_volume",
    "volume_from_bytes",
    "volume_to_bytes",
    "write_volume",
]

DEFAULT_MAX_VOXELS = 512 * 512 * 1024
GZIP_LEVEL = 1
LARGEST_VOXEL_BYTES = 8
_DECODERS: dict[str, Callable[[memoryview, int, str], Volume]] = {
    "nifti": nifti.decode,
    "nifti; gzip": nifti.decode_gzip,
    "nrrd": nrrd.decode,
}
FORMATS = tuple(_DECODERS)
"""The values of ``sensor_msgs/CompressedImage.format`` that hold a volume."""
_SUFFIXES = {".nii": "nifti", ".nii.gz": "nifti; gzip", ".nrrd": "nrrd"}
_META_IMAGE = (".mha", ".mhd")


def volume_from_bytes(
    data: bytes | bytearray | memoryview | np.ndarray,
    format: str,
    *,
    frame_id: str = "patient",
    max_voxels: int = DEFAULT_MAX_VOXELS,
) -> Volume:
    """Decode one whole file. ``data``: any contiguous buffer of bytes; ``format``: one of FORMATS.

    Voxels keep their type (float32 if a slope or intercept applies) and are a view of ``data`` where possible: keep it
    unchanged while the Volume lives. The affine is RAS+ mm, rounded to float32. Raises VolumeError.
    """
    if format not in _DECODERS:
        raise VolumeIOError(f"volume format {format[:40]!r}: expected one of {list(FORMATS)}")
    return _DECODERS[format](memoryview(data).cast("B"), max_voxels, frame_id)


def volume_to_bytes(volume: Volume, format: str = "nifti", description: str = "") -> bytes | bytearray:
    """Encode as one whole file; ``format``: one of FORMATS. Decoding gives the same voxels and, in float32, affine.

    description: one line of ASCII for a person or a tool, in the header (79 characters in NIfTI's ``descrip``).
    """
    if format == "nifti":
        return nifti.encode(volume, description)
    if format == "nifti; gzip":
        return zlib.compress(nifti.encode(volume, description), GZIP_LEVEL, wbits=31)
    if format == "nrrd":
        return nrrd.encode(volume, description)
    raise VolumeIOError(f"volume format {format[:40]!r}: expected one of {list(FORMATS)}")


def read_volume(path: str | Path, *, frame_id: str = "patient", max_voxels: int = DEFAULT_MAX_VOXELS) -> Volume:
    """A .nii, .nii.gz, .nrrd, .mha or .mhd file, or a folder that holds one DICOM series. Raises VolumeError."""
    path = Path(path)
    try:
        if path.is_dir():
            from threedme_ros.dicom_series import read_dicom_series

            return read_dicom_series(path, frame_id=frame_id, max_voxels=max_voxels)
        return _read_file(path, _suffix(path), frame_id, max_voxels)
    except OSError as error:
        raise VolumeIOError(f"{path}: {error.strerror or error}") from error


def write_volume(path: str | Path, volume: Volume) -> None:
    """To .nii, .nii.gz, .nrrd, .mha or .mhd; the ending decides. Raises VolumeIOError for any other.

    A volume is a patient's: only its owner may read the file. It appears whole, and takes the place of a link.
    """
    path = Path(path)
    suffix = _suffix(path)
    if suffix == ".mhd":
        # the header names the other file, so both are written under their own names, in a folder nobody else can enter
        with TemporaryDirectory(prefix=".", dir=path.parent) as folder:
            temporary = Path(folder) / path.name
            _write_meta_image(temporary, volume)
            for part in (temporary.with_suffix(".raw"), temporary):  # the header last: what it names is there
                part.chmod(PRIVATE_FILE)
                part.replace(path.with_name(part.name))
        return
    with replacing(path) as temporary:
        if suffix in _META_IMAGE:
            _write_meta_image(temporary, volume)
        else:
            temporary.write_bytes(volume_to_bytes(volume, _SUFFIXES[suffix]))


def _suffix(path: Path) -> str:
    known = (*_SUFFIXES, *_META_IMAGE)
    for suffix in known:
        if path.name.lower().endswith(suffix):
            return suffix
    raise VolumeIOError(f"{path.name}: unknown kind of file, expected one of {list(known)} or a DICOM folder")


def _read_file(path: Path, suffix: str, frame_id: str, max_voxels: int) -> Volume:
    try:
        data = _read_bytes(path, max_voxels)
        if suffix in _META_IMAGE:
            return _read_meta_image(path, data, frame_id, max_voxels)
        return volume_from_bytes(data, _SUFFIXES[suffix], frame_id=frame_id, max_voxels=max_voxels)
    except VolumeError as error:
        raise VolumeIOError(f"{path.name}: {error}") from error


def _read_bytes(path: Path, max_voxels: int) -> bytes:
    most = max_voxels * LARGEST_VOXEL_BYTES + nifti.MAX_EXTENSION_BYTES
    if not path.is_file() and path.exists():
        raise VolumeIOError("not a regular file")  # a pipe or a device has no end
    if path.stat().st_size > most:
        raise VolumeIOError(f"{path.stat().st_size} bytes: expected at most {most} for {max_voxels} voxels")
    return path.read_bytes()


def _read_meta_image(path: Path, data: bytes, frame_id: str, max_voxels: int) -> Volume:
    """An .mhd names the file of its voxels: one beside it is opened, whatever else a header may ask for is not."""
    fields, _ = metaimage.read_fields(memoryview(data))
    name, voxels = fields["ElementDataFile"], None
    if name != metaimage.LOCAL:
        plain = Path(name).name == name and Path(name).suffix and "%" not in name and name.isprintable()
        if path.suffix.lower() != ".mhd" or not plain:
            raise VolumeIOError(
                f"MetaImage ElementDataFile {name[:60]!r}: expected LOCAL, or in an .mhd a file beside it"
            )
        voxels = memoryview(_read_bytes(path.with_name(name), max_voxels))
    return metaimage.decode(memoryview(data), max_voxels, frame_id, voxels)


def _write_meta_image(path: Path, volume: Volume) -> None:
    import SimpleITK as sitk  # noqa: N813 the library's own abbreviation

    image = sitk.GetImageFromArray(storable(volume.voxels).T)  # (K, J, I)
    affine = LPS_FROM_RAS @ volume.affine
    image.SetSpacing(volume.spacing_mm)
    image.SetOrigin(affine[:3, 3])
    image.SetDirection((affine[:3, :3] / volume.spacing_mm).ravel())
    sitk.WriteImage(image, str(path))
