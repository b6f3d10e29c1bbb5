"""DICOM: a slice that arrives by C-STORE, and one in a file."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import MutableSequence
from functools import cache
from pathlib import Path

from threedme_ros.dicom_series import read_dicom_series
from threedme_ros.dicom_store import SeriesStore, StoreSettings
from threedme_ros.volume import Volume, VolumeError

from . import seeds, structure
from .decoder import MAX_VOXELS, Decoder, check_volume, from_file


def store_slice(encoded: bytes) -> Volume:
    """A slice by C-STORE with a good neighbour after it; the series' volume. The node's process ignores warnings.

    AssertionError where the store holds more than it counts.
    """
    warnings.simplefilter("ignore")
    store = SeriesStore(StoreSettings(max_bytes=1 << 20, use_count=False))
    store.add(encoded, "1", "a", 0.0)
    store.add(neighbour_bytes(), "2", "a", 0.0)
    store.ended("a", orderly=True)
    closed = store.due(100.0)  # of two series where the slice says it is of another
    elements = [element for series in closed for slice_ in series.slices for element in slice_.values()]
    held = sum(held_bytes(element.value) for element in elements)
    assert held <= sum(series.nbytes for series in closed) == store.nbytes, f"{held} bytes held, {store.nbytes} counted"
    return closed[0].volume(frame_id="patient", max_voxels=MAX_VOXELS)


def held_bytes(value: object) -> int:
    """Of an element's value, decoded or not, with all that is in it."""
    inside = value if isinstance(value, list | tuple | MutableSequence) else ()
    return sys.getsizeof(value) + sum(map(held_bytes, inside))


@cache
def neighbour_bytes() -> bytes:
    return seeds.slice_bytes(2)


def read_slice_file(path: Path) -> Volume:
    import pydicom

    return read_dicom_series([path, pydicom.dcmread(io.BytesIO(neighbour_bytes()))], max_voxels=MAX_VOXELS)


def decoders() -> tuple[Decoder, ...]:
    shared = {"refusals": (VolumeError,), "check": check_volume, "mutate": structure.dicom, "seeds": seeds.dicom}
    return Decoder("dicom_store", store_slice, **shared), from_file("dicom_file", ".dcm", read_slice_file, **shared)
