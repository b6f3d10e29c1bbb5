"""DICOM: a slice that arrives by C-STORE, and one in a file."""

from __future__ import annotations

import io
import warnings
from functools import cache
from pathlib import Path

from threedme_ros.dicom_series import read_dicom_series
from threedme_ros.dicom_store import SeriesStore, StoreSettings
from threedme_ros.volume import Volume, VolumeError

from . import seeds, structure
from .decoder import MAX_VOXELS, Decoder, check_volume, from_file


def store_slice(encoded: bytes) -> Volume:
    """A slice by C-STORE with a good neighbour after it; the series' volume. The node's process ignores warnings."""
    warnings.simplefilter("ignore")
    store = SeriesStore(StoreSettings(max_bytes=1 << 20, use_count=False))
    store.add(encoded, "1", "a", 0.0)
    store.add(neighbour_bytes(), "2", "a", 0.0)
    store.ended("a", orderly=True)
    closed = store.due(100.0)[0]
    return closed.volume(frame_id="patient", max_voxels=MAX_VOXELS)


@cache
def neighbour_bytes() -> bytes:
    return seeds.slice_bytes(2)


def read_slice_file(path: Path) -> Volume:
    import pydicom

    return read_dicom_series([path, pydicom.dcmread(io.BytesIO(neighbour_bytes()))], max_voxels=MAX_VOXELS)


def decoders() -> tuple[Decoder, ...]:
    shared = {"refusals": (VolumeError,), "check": check_volume, "mutate": structure.dicom, "seeds": seeds.dicom}
    return Decoder("dicom_store", store_slice, **shared), from_file("dicom_file", ".dcm", read_slice_file, **shared)
