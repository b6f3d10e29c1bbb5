"""DICOM slices, in files or in memory -> one Volume. What does not stack into one regular, straight grid is refused.

Messages count and measure; they never repeat a name, an id, a date, a UID or a file name.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from threedme_ros.dicom_elements import DicomSeriesError, read_header, says_image
from threedme_ros.dicom_frames import FrameSize, check_frame
from threedme_ros.formats.voxel_block import VoxelBlock, checked_shape
from threedme_ros.volume import LPS_FROM_RAS, Volume

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
BITS = (8, 16, 32, 64)
PADDING_BYTES = 1 << 16
"""That may follow a slice's pixels, or stand round compressed ones."""


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
                with path.open("rb") as file:
                    header, _ = read_header(file)
            if "Rows" in header:
                slices.append(_slice(path, header))
            elif header is path or says_image(header):  # not a DICOMDIR or a report
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


def _slice(source: Path | Dataset, header: Dataset) -> _Slice:
    for name in _GEOMETRY:
        if header.get(name) in (None, ""):
            raise DicomSeriesError(f"no {name}: expected it, to place the slice")
    bits = int(header.get("BitsAllocated") or 16)
    return _Slice(
        source=source,
        series=str(header.get("SeriesInstanceUID", "")),  # anonymisers may remove it, from all slices alike
        size=(int(header.Columns), int(header.Rows)),
        orientation=_numbers(header, "ImageOrientationPatient", 6),
        position=_numbers(header, "ImagePositionPatient", 3),
        spacing_mm=_numbers(header, "PixelSpacing", 2),
        rescale=_rescale(header, bits),
        photometric=str(header.get("PhotometricInterpretation", "MONOCHROME2")),
        samples=int(header.get("SamplesPerPixel") or 1),
        frames=int(header.get("NumberOfFrames") or 1),
        bits=bits,
    )


def _rescale(header: Dataset, bits: int) -> tuple[float, float]:
    """Slope and intercept, under which every value of so many bits is a number that float32 holds."""
    if bits not in BITS:
        raise DicomSeriesError(f"DICOM pixels of {bits} bits (BitsAllocated): expected one of {BITS}")
    defaults = {"RescaleSlope": 1, "RescaleIntercept": 0}
    given = {name: header.get(name) for name in defaults}
    slope, inter = (float(defaults[name] if value in (None, "") else value) for name, value in given.items())
    with np.errstate(over="ignore", under="ignore"):
        usable = np.float32(slope) != 0 and np.isfinite(np.float32(abs(slope) * 2.0**bits + abs(inter)))
    if not usable:
        raise DicomSeriesError(
            f"DICOM rescale slope {slope:g} and intercept {inter:g} of {bits}-bit pixels: "
            "expected a slope other than 0, and values that float32 holds"
        )
    return slope, inter


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
        if isinstance(source, pydicom.Dataset):
            data, syntax = source, source.file_meta.TransferSyntaxUID
            _check_length(data, len(data.get("PixelData") or b""), shape)
        else:
            with Path(source).open("rb") as file:
                data, place = read_header(file)
                syntax = data.file_meta.TransferSyntaxUID
                _check_length(data, place.nbytes if place else 0, shape)
                place.read_into(data, file)
        if syntax.is_compressed and _decodable(syntax):
            _check_compressed(data, shape)
        pixels = pixel_array(data, index=0)  # unlike the attribute, it leaves no copy behind in a dataset that stays
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


def _check_length(data: Dataset, nbytes: int, shape: tuple[int, int]) -> None:
    """That the header still says what it said when the stack was checked, and that so many pixels need ``nbytes``."""
    rows, columns, bits = data.Rows, data.Columns, data.get("BitsAllocated") or 16
    if (rows, columns) != shape or bits not in BITS:
        raise DicomSeriesError(
            f"DICOM pixels of shape {(rows, columns)}, {bits} bits: expected {shape} (rows, columns)"
        )
    expected = rows * columns * bits // 8
    packed = data.file_meta.TransferSyntaxUID.is_compressed
    least, most = (1, 2 * expected + PADDING_BYTES) if packed else (expected, expected + PADDING_BYTES)
    if not least <= nbytes <= most:
        raise DicomSeriesError(
            f"DICOM pixels cannot be decoded: {nbytes} bytes of PixelData for {rows} rows of {columns} columns, "
            f"{bits} bits each: expected {least} to {most}"
        )


def _check_compressed(data: Dataset, shape: tuple[int, int]) -> None:
    """The frame that will be decoded, before it is."""
    from pydicom.encaps import get_frame

    frame = get_frame(data.PixelData, 0, number_of_frames=1)
    rows, columns = shape
    check_frame(frame, data.file_meta.TransferSyntaxUID, FrameSize(columns, rows), data.BitsAllocated // 8)


def _decodable(syntax: str) -> bool:
    from pydicom.pixels import get_decoder

    try:
        return get_decoder(syntax).is_available
    except (NotImplementedError, ValueError):  # a syntax pydicom has never heard of
        return False
