"""DICOM slices, in files or in memory -> one Volume. What does not stack into one regular, straight grid is refused.

Messages count and measure; they never repeat a name, an id, a date, a UID or a file name.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from threedme_ros.formats.voxel_block import VoxelBlock, checked_shape
from threedme_ros.volume import LPS_FROM_RAS, Volume, VolumeIOError

if TYPE_CHECKING:
    from pydicom import Dataset

GAP_TOLERANCE_MM = 0.1
"""How far a slice may lie from its place in an even stack; scanners round positions to some hundredths."""
SHEAR_TOLERANCE_MM = 0.5
"""How far the slices may be shifted against each other in their plane (gantry tilt)."""
ORIENTATION_TOLERANCE = 1e-4
SPACING_TOLERANCE_MM = 1e-4
DEFAULT_MAX_VOXELS = 512 * 512 * 1024
_GEOMETRY = ("Columns", "Rows", "ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing")
SLICE_TAGS = (
    *_GEOMETRY,
    "SeriesInstanceUID",
    "PhotometricInterpretation",
    "SamplesPerPixel",
    "NumberOfFrames",
    "BitsAllocated",
    "RescaleSlope",
    "RescaleIntercept",
)
"""All that a slice's place and values need, beside the pixels themselves (`PIXEL_TAGS`)."""
PIXEL_TAGS = ("BitsStored", "HighBit", "PixelRepresentation", "PlanarConfiguration", "PixelData")

DEFLATED = "1.2.840.10008.1.2.1.99"


class DicomSeriesError(VolumeIOError):
    """The files are not one straight, evenly spaced series of single-frame greyscale slices."""


@dataclass(frozen=True)
class _Slice:
    """What one slice's header says. Position, orientation (along a row, down a column): LPS+ mm."""

    source: Path | Dataset
    series: str
    size: tuple[int, int]  # columns, rows
    orientation: tuple[float, ...]
    position: tuple[float, ...]
    spacing_mm: tuple[float, ...]  # between rows, between columns
    rescale: tuple[float, float]  # slope, intercept
    photometric: str
    samples: int
    frames: int
    bits: int


def read_dicom_series(
    source: str | Path | Iterable[str | Path | Dataset],
    *,
    frame_id: str = "patient",
    max_voxels: int = DEFAULT_MAX_VOXELS,
) -> Volume:
    """``source``: a folder (its files, not its subfolders), or the files or datasets of one series, in any order.

    Voxels [column, row, slice], slices sorted along their normal; int16 where rescaling keeps whole numbers that fit
    (CT in HU), else int32 or float32. Affine RAS+ mm. Raises DicomSeriesError.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's quote the file, patient's name and all
        slices = _read_headers(source)
        _check_alike(slices)
        slices, affine = _stack(slices)
        shape = checked_shape((*slices[0].size, len(slices)), max_voxels)
        block = VoxelBlock(shape, np.dtype(np.int16), LPS_FROM_RAS @ affine)
        return Volume(_read_voxels(slices, shape), block.affine, frame_id)


class _Bounded(io.BufferedReader):
    """A file whose ``read`` takes memory for the bytes that are there, not for those that a length in it claims."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self._size = path.stat().st_size

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


def read_dataset(file: str | Path | IO[bytes], **options) -> Dataset:
    """pydicom's ``dcmread``, but a deflated data set, which a few bytes can make any size, is refused unread."""
    import pydicom
    from pydicom.filereader import _read_file_meta_info, read_preamble

    if isinstance(file, str | Path):
        with _Bounded(Path(file)) as opened:
            return read_dataset(opened, **options)
    logging.getLogger("pydicom").disabled = True  # for good: what it logs quotes the file, patient's name and all
    read_preamble(file, False)
    if _read_file_meta_info(file).get("TransferSyntaxUID") == DEFLATED:
        raise DicomSeriesError("deflated DICOM: expected a transfer syntax whose size is bounded by the file's")
    file.seek(0)
    return pydicom.dcmread(file, **options)


def _read_headers(source: str | Path | Iterable[str | Path | Dataset]) -> list[_Slice]:
    """The images among the files; pixels stay on disk until the geometry is known to be good."""
    from pydicom import Dataset
    from pydicom.errors import InvalidDicomError

    if isinstance(source, str | Path):
        paths = sorted(p for p in Path(source).iterdir() if p.is_file() and not p.name.startswith("."))
    else:
        paths = [p if isinstance(p, Dataset) else Path(p) for p in source]
    slices = []
    for number, path in enumerate(paths, 1):
        try:
            header = path
            if not isinstance(path, Dataset):
                header = read_dataset(path, stop_before_pixels=True, specific_tags=list(SLICE_TAGS))
            if "Rows" in header:
                slices.append(_slice(path, header))
            elif header is path or _says_image(header):  # not a DICOMDIR or a report
                raise DicomSeriesError("an image without Rows: is it cut off?")
        except InvalidDicomError:
            continue  # folders from a scanner also hold viewers, logs and readme files
        except DicomSeriesError as error:
            raise DicomSeriesError(f"DICOM file {number} of {len(paths)}: {error}") from error
        except Exception as error:  # pydicom raises many kinds on damage; its text may quote the patient
            kind = type(error).__name__
            raise DicomSeriesError(f"DICOM file {number} of {len(paths)}: damaged header ({kind})") from None
    if len(slices) < 2:
        raise DicomSeriesError(
            f"{len(slices)} DICOM images in {len(paths)} files: expected 2 or more, for a slice spacing"
        )
    return slices


def _says_image(header: Dataset) -> bool:
    kind = header.file_meta.get("MediaStorageSOPClassUID")
    return isinstance(kind, str) and getattr(kind, "name", "").endswith("Image Storage")


def _slice(source: Path | Dataset, header: Dataset) -> _Slice:
    for name in _GEOMETRY:
        if header.get(name) in (None, ""):
            raise DicomSeriesError(f"no {name}: expected it, to place the slice")
    return _Slice(
        source=source,
        series=str(header.get("SeriesInstanceUID", "")),  # anonymisers may remove it, from all slices alike
        size=(int(header.Columns), int(header.Rows)),
        orientation=_numbers(header, "ImageOrientationPatient", 6),
        position=_numbers(header, "ImagePositionPatient", 3),
        spacing_mm=_numbers(header, "PixelSpacing", 2),
        rescale=(float(header.get("RescaleSlope") or 1), float(header.get("RescaleIntercept") or 0)),
        photometric=str(header.get("PhotometricInterpretation", "MONOCHROME2")),
        samples=int(header.get("SamplesPerPixel") or 1),
        frames=int(header.get("NumberOfFrames") or 1),
        bits=int(header.get("BitsAllocated") or 16),
    )


def _numbers(header: Dataset, name: str, count: int) -> tuple[float, ...]:
    values = tuple(float(v) for v in header[name])
    if len(values) != count or not np.isfinite(values).all():
        raise DicomSeriesError(f"{name} {values}: expected {count} finite numbers")
    return values


def _check_alike(slices: list[_Slice]) -> None:
    """One series, of single-frame greyscale slices of one size, spacing and orientation."""
    series = len({s.series for s in slices})
    if series > 1:
        raise DicomSeriesError(f"{series} DICOM series (different SeriesInstanceUID) among the files: expected one")
    colours = sorted({s.photometric[:20] for s in slices})
    if colours != ["MONOCHROME2"] or max(s.samples for s in slices) > 1:
        raise DicomSeriesError(f"DICOM pixels of {', '.join(colours)}: expected MONOCHROME2, one value a pixel")
    frames = max(s.frames for s in slices)
    if frames > 1:
        raise DicomSeriesError(f"DICOM file of {frames} frames: expected single-frame slices")
    sizes = sorted({s.size for s in slices})
    if len(sizes) > 1:
        raise DicomSeriesError(f"DICOM slices of different sizes {sizes}: expected one size")
    _check_spread("PixelSpacing (mm)", np.array([s.spacing_mm for s in slices]), SPACING_TOLERANCE_MM)
    _check_spread("ImageOrientationPatient", np.array([s.orientation for s in slices]), ORIENTATION_TOLERANCE)
    if not np.isfinite([s.rescale for s in slices]).all():
        raise DicomSeriesError("DICOM rescale slope or intercept is not finite: expected numbers")


def _check_spread(name: str, values: np.ndarray, tolerance: float) -> None:
    spread = float(np.ptp(values, axis=0).max())
    if spread > tolerance:
        raise DicomSeriesError(f"DICOM slices of different {name}, by up to {spread:.4g}: expected at most {tolerance}")


def _stack(slices: list[_Slice]) -> tuple[list[_Slice], np.ndarray]:
    """Slices sorted along the normal, and the affine (4, 4): [column, row, slice] -> LPS+ mm."""
    between_rows, between_columns = slices[0].spacing_mm
    if min(between_rows, between_columns) <= 0:
        raise DicomSeriesError(f"DICOM PixelSpacing {slices[0].spacing_mm}: expected positive mm")
    along_row, down_column = np.array(slices[0].orientation).reshape(2, 3)
    normal = np.cross(along_row, down_column)
    lengths = [float(np.linalg.norm(v)) for v in (along_row, down_column, normal)]
    if not np.allclose(lengths, 1, atol=1e-3):
        raise DicomSeriesError(
            f"DICOM ImageOrientationPatient {slices[0].orientation}: expected two orthogonal unit vectors"
        )
    slices = sorted(slices, key=lambda s: np.dot(s.position, normal))
    positions = np.array([s.position for s in slices])
    depth = (positions - positions[0]) @ normal
    gaps = np.diff(depth)
    doubles = int((gaps < GAP_TOLERANCE_MM / 10).sum())
    if doubles:
        raise DicomSeriesError(f"{doubles} DICOM slices at the same position as another: expected one a position")
    if np.abs(depth - np.linspace(0, depth[-1], len(depth))).max() > GAP_TOLERANCE_MM:
        raise DicomSeriesError(
            f"uneven DICOM slice gaps, {gaps.min():.3g} to {gaps.max():.3g} mm (a missing slice?): "
            f"expected an even stack within {GAP_TOLERANCE_MM} mm"
        )
    shift = np.linalg.norm(positions - positions[0] - np.outer(depth, normal), axis=1).max()
    if shift > SHEAR_TOLERANCE_MM:
        step = positions[-1] - positions[0]
        tilt = np.degrees(np.arccos(np.clip(step @ normal / np.linalg.norm(step), -1, 1)))
        raise DicomSeriesError(
            f"sheared DICOM stack: slices shift by {shift:.3g} mm in their plane (gantry tilt {tilt:.1f} degrees), "
            f"expected at most {SHEAR_TOLERANCE_MM} mm"
        )
    affine = np.eye(4)
    affine[:3, :3] = np.column_stack([along_row * between_columns, down_column * between_rows, normal * gaps.mean()])
    affine[:3, 3] = positions[0]
    return slices, affine


def _read_voxels(slices: list[_Slice], shape: tuple[int, int, int]) -> np.ndarray:
    """(I, J, K) in Fortran order, rescaled slice by slice (slope and intercept may differ)."""
    whole = all(slope == int(slope) and inter == int(inter) for slope, inter in (s.rescale for s in slices))
    small = all(s.bits <= 16 and abs(s.rescale[0]) <= 1 << 14 and abs(s.rescale[1]) <= 1 << 29 for s in slices)
    voxels = np.empty(shape[::-1], np.int32 if whole and small else np.float32)  # (K, J, I)
    for plane, header in zip(voxels, slices, strict=True):
        plane[...] = _pixels(header.source, plane.shape)
        if header.rescale != (1, 0):
            slope, inter = header.rescale
            plane *= plane.dtype.type(slope)
            plane += plane.dtype.type(inter)
    fits = np.iinfo(np.int16)
    if voxels.dtype == np.int32 and voxels.min() >= fits.min and voxels.max() <= fits.max:
        voxels = voxels.astype(np.int16)
    return voxels.T


def _pixels(source: Path | Dataset, shape: tuple[int, int]) -> np.ndarray:
    """One slice (row, column), as stored."""
    import pydicom
    from pydicom.pixels import pixel_array
    from pydicom.uid import UID

    syntax = None
    try:
        data = source if isinstance(source, pydicom.Dataset) else read_dataset(source)
        syntax = data.file_meta.TransferSyntaxUID
        pixels = pixel_array(data)  # unlike the attribute, it leaves no copy behind in a dataset that stays
    except DicomSeriesError:
        raise
    except Exception as error:  # damage can be any exception, and its text may quote the patient
        if isinstance(syntax, UID) and not _decodable(syntax):
            raise DicomSeriesError(
                f"DICOM compressed as {syntax.name[:60]}, which no installed decoder reads: "
                "pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg"
            ) from None
        raise DicomSeriesError(f"DICOM pixels cannot be decoded ({type(error).__name__})") from None
    if pixels.shape != shape:
        raise DicomSeriesError(f"DICOM pixels of shape {pixels.shape}: expected {shape} (rows, columns)")
    return pixels


def _decodable(syntax: str) -> bool:
    from pydicom.pixels import get_decoder

    try:
        return get_decoder(syntax).is_available
    except (NotImplementedError, ValueError):  # a syntax pydicom has never heard of
        return False
