"""A folder of DICOM slices -> one Volume. What does not stack into one regular, straight grid is refused.

Messages count and measure; they never repeat a name, an id, a date or a UID from the files.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from threedme_ros.formats.voxel_block import VoxelBlock, checked_shape
from threedme_ros.volume import LPS_FROM_RAS, Volume, VolumeIOError

if TYPE_CHECKING:
    from pydicom import Dataset

GAP_TOLERANCE_MM = 0.1
"""How far a slice may lie from its place in an even stack; scanners round positions to some hundredths."""
SHEAR_TOLERANCE_MM = 0.5
"""How far the first and last slice may be shifted against each other in the plane (gantry tilt)."""
ORIENTATION_TOLERANCE = 1e-4
DEFAULT_MAX_VOXELS = 512 * 512 * 1024
_SKIPPED = {"DICOMDIR"}


class DicomSeriesError(VolumeIOError):
    """The files are not one straight, evenly spaced series of single-frame greyscale slices."""


def read_dicom_series(
    source: str | Path | Iterable[str | Path],
    *,
    frame_id: str = "patient",
    max_voxels: int = DEFAULT_MAX_VOXELS,
) -> Volume:
    """``source``: a folder (its files, not its subfolders) or the files of one series, in any order.

    Voxels [column, row, slice], slices sorted along their normal; int16 where rescaling keeps whole numbers that fit
    (CT in HU), else float32. Affine RAS+ mm. Raises DicomSeriesError.
    """
    slices = _read_headers(source)
    _check_alike(slices)
    slices, affine = _stack(slices)
    shape = checked_shape((slices[0].Columns, slices[0].Rows, len(slices)), max_voxels)
    block = VoxelBlock(shape, np.dtype(np.int16), LPS_FROM_RAS @ affine)
    return Volume(_read_voxels(slices, shape), block.affine, frame_id)


def _read_headers(source: str | Path | Iterable[str | Path]) -> list[Dataset]:
    """The image slices among the files; pixels stay on disk until the geometry is known to be good."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    if isinstance(source, str | Path):
        paths = sorted(p for p in Path(source).iterdir() if p.is_file() and not p.name.startswith("."))
    else:
        paths = [Path(p) for p in source]
    slices = []
    for path in paths:
        if path.name in _SKIPPED:
            continue
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
        except InvalidDicomError:
            continue  # a folder from a scanner also holds viewers, logs and readme files
        except Exception as error:  # pydicom raises many kinds on damaged files; none may pass as another error
            raise DicomSeriesError(f"DICOM file {path.name[-12:]!r} cannot be read: {type(error).__name__}") from error
        if "Rows" in header:
            header.filename = str(path)
            slices.append(header)
    if len(slices) < 2:
        raise DicomSeriesError(f"{len(slices)} DICOM image in {len(paths)} files: expected a series of 2 or more")
    return slices


def _check_alike(slices: list[Dataset]) -> None:
    """One series, of single-frame greyscale slices of one size, spacing and orientation."""
    needed = ("Columns", "ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing")
    for name in needed:
        lacking = sum(s.get(name) in (None, "") for s in slices)
        if lacking:
            raise DicomSeriesError(f"{lacking} of {len(slices)} DICOM slices lack {name}: expected it in each")
    series = len({s.get("SeriesInstanceUID", "") for s in slices})  # anonymisers remove it, from all alike
    if series > 1:
        raise DicomSeriesError(f"{series} DICOM series (different SeriesInstanceUID) in one folder: expected one")
    colours = {s.get("PhotometricInterpretation", "MONOCHROME2") for s in slices}
    if not colours <= {"MONOCHROME2"} or any(s.get("SamplesPerPixel", 1) != 1 for s in slices):
        raise DicomSeriesError(f"DICOM pixels of {sorted(colours)}: expected MONOCHROME2, one value a pixel")
    frames = max(int(s.get("NumberOfFrames") or 1) for s in slices)
    if frames > 1:
        raise DicomSeriesError(f"DICOM file of {frames} frames: expected single-frame slices")
    sizes = {(s.Columns, s.Rows) for s in slices}
    if len(sizes) > 1:
        raise DicomSeriesError(f"DICOM slices of different sizes {sorted(sizes)}: expected one size")
    _check_spread(slices, "PixelSpacing", 2, 1e-4, "mm")
    _check_spread(slices, "ImageOrientationPatient", 6, ORIENTATION_TOLERANCE, "")


def _check_spread(slices: list[Dataset], name: str, count: int, tolerance: float, unit: str) -> None:
    values = np.array([_numbers(s, name, count) for s in slices])
    spread = float(np.ptp(values, axis=0).max())
    if not spread <= tolerance:
        raise DicomSeriesError(
            f"DICOM slices with different {name}, by up to {spread:.4g}{unit}: expected at most {tolerance}{unit}"
        )


def _numbers(header: Dataset, name: str, count: int) -> list[float]:
    values = header.get(name)
    values = [float(v) for v in (values if hasattr(values, "__len__") and not isinstance(values, str) else [values])]
    if len(values) != count or not np.isfinite(values).all():
        raise DicomSeriesError(f"DICOM {name} {values}: expected {count} finite numbers")
    return values


def _stack(slices: list[Dataset]) -> tuple[list[Dataset], np.ndarray]:
    """Slices sorted along the normal, and the affine (4, 4): [column, row, slice] -> LPS+ mm."""
    row_spacing, column_spacing = _numbers(slices[0], "PixelSpacing", 2)
    if row_spacing <= 0 or column_spacing <= 0:
        raise DicomSeriesError(f"DICOM PixelSpacing {row_spacing}, {column_spacing}: expected positive mm")
    along_columns, along_rows = np.array(_numbers(slices[0], "ImageOrientationPatient", 6)).reshape(2, 3)
    normal = np.cross(along_columns, along_rows)
    lengths = [np.linalg.norm(v) for v in (along_columns, along_rows, normal)]
    if not np.allclose(lengths, 1, atol=1e-3):
        raise DicomSeriesError(
            f"DICOM ImageOrientationPatient of lengths {np.round(lengths, 3)}: expected unit vectors"
        )
    positions = np.array([_numbers(s, "ImagePositionPatient", 3) for s in slices])
    order = np.argsort(positions @ normal, kind="stable")
    positions = positions[order]
    depth = positions @ normal
    gaps = np.diff(depth)
    doubles = int((gaps < GAP_TOLERANCE_MM / 10).sum())
    if doubles:
        raise DicomSeriesError(f"{doubles} DICOM slices at the same position as another: expected one a position")
    off = np.abs(depth - np.linspace(depth[0], depth[-1], len(depth))).max()
    if off > GAP_TOLERANCE_MM:
        raise DicomSeriesError(
            f"uneven DICOM slice gaps, {gaps.min():.3g} to {gaps.max():.3g} mm (a missing slice?): "
            f"expected an even stack within {GAP_TOLERANCE_MM} mm"
        )
    step = (positions[-1] - positions[0]) / (len(slices) - 1)
    shift = np.abs((positions - positions[0]) - np.outer(depth - depth[0], normal)).max()
    if shift > SHEAR_TOLERANCE_MM:
        tilt = np.degrees(np.arccos(np.clip(step @ normal / np.linalg.norm(step), -1, 1)))
        raise DicomSeriesError(
            f"sheared DICOM stack: slices shift by {shift:.3g} mm in their plane (gantry tilt {tilt:.1f} degrees), "
            f"expected at most {SHEAR_TOLERANCE_MM} mm"
        )
    affine = np.eye(4)
    # PixelSpacing is (between rows, between columns); ImageOrientationPatient is (along a row, down a column)
    affine[:3, :3] = np.column_stack([along_columns * column_spacing, along_rows * row_spacing, normal * gaps.mean()])
    affine[:3, 3] = positions[0]
    return [slices[i] for i in order], affine


def _read_voxels(slices: list[Dataset], shape: tuple[int, int, int]) -> np.ndarray:
    """(I, J, K) in Fortran order, rescaled slice by slice (slope and intercept may differ)."""
    rescale = [(float(s.get("RescaleSlope") or 1), float(s.get("RescaleIntercept") or 0)) for s in slices]
    if not np.isfinite(rescale).all():
        raise DicomSeriesError("DICOM RescaleSlope or RescaleIntercept is not finite: expected numbers")
    whole = all(slope == int(slope) and inter == int(inter) for slope, inter in rescale)
    voxels = np.empty(shape[::-1], np.int32 if whole else np.float32)
    for plane, header, (slope, inter) in zip(voxels, slices, rescale, strict=True):
        plane[...] = _pixels(header, shape)
        if (slope, inter) != (1, 0):
            plane *= plane.dtype.type(slope)
            plane += plane.dtype.type(inter)
    fits = np.iinfo(np.int16)
    if whole and voxels.min() >= fits.min and voxels.max() <= fits.max:
        voxels = voxels.astype(np.int16)
    return voxels.T


def _pixels(header: Dataset, shape: tuple[int, int, int]) -> np.ndarray:
    """One slice (row, column), as stored."""
    import pydicom

    try:
        pixels = pydicom.dcmread(header.filename).pixel_array
    except Exception as error:  # a missing decoder is a RuntimeError or NotImplementedError, damage is anything
        syntax = header.file_meta.get("TransferSyntaxUID")
        if syntax is not None and syntax.is_compressed and not _decodable(syntax):
            raise DicomSeriesError(
                f"DICOM compressed as {syntax.name}, and no decoder for it: pip install pylibjpeg pylibjpeg-libjpeg "
                "pylibjpeg-openjpeg"
            ) from error
        raise DicomSeriesError(f"DICOM pixels cannot be decoded: {type(error).__name__}") from error
    if pixels.shape != (shape[1], shape[0]):
        raise DicomSeriesError(f"DICOM pixels of shape {pixels.shape}: expected {(shape[1], shape[0])}")
    return pixels


def _decodable(syntax: str) -> bool:
    from pydicom.pixels import get_decoder

    try:
        return get_decoder(syntax).is_available
    except NotImplementedError:
        return False
