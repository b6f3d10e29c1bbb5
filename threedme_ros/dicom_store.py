"""DICOM slices that arrive one by one -> whole series, in bounded memory. No socket, no ROS, and time is an argument.

Of each slice only its pixels, its place and its series are kept: what names the patient is dropped at the door. Series
go by `series_tag`, a digest; no UID, name or date leaves this module.
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from threedme_ros.dicom_elements import COUNT_TAGS, read_header
from threedme_ros.dicom_series import DicomSeriesError, read_dicom_series
from threedme_ros.volume import Volume

if TYPE_CHECKING:
    from pydicom import Dataset

MAX_REJECTED = 64
SLICE_BYTES = 1 << 15
"""What a slice is charged beside its pixels, for the objects that hold it: 8 kB as it arrives, 18 kB once decoded."""


@dataclass(frozen=True)
class StoreSettings:
    """``max_bytes``: of all slices held, their pixels and `SLICE_BYTES` each; ``max_slices``: of one series.

    ``quiet_s``: a series without a new slice this long is closed.
    ``use_count``: believe `COUNT_TAGS`. Some scanners count the images of all reconstructions there.
    """

    max_bytes: int = 1 << 30
    max_series: int = 4
    max_slices: int = 4096
    quiet_s: float = 5.0
    use_count: bool = True


@dataclass(frozen=True, eq=False)
class ClosedSeries:
    """A series that gets no more slices. ``reason``: why it is refused, empty if it may be whole."""

    tag: str
    slices: tuple[Dataset, ...]
    nbytes: int
    reason: str = ""

    def volume(self, *, frame_id: str, max_voxels: int) -> Volume:
        """The one volume of all slices, by the same rules as from a folder. Raises DicomSeriesError."""
        if self.reason:
            raise DicomSeriesError(self.reason)
        return read_dicom_series(self.slices, frame_id=frame_id, max_voxels=max_voxels)


@dataclass(eq=False)
class _Series:
    tag: str
    slices: dict[str, tuple[Dataset, int]] = field(default_factory=dict)  # by instance: the slice and its bytes
    nbytes: int = 0
    associations: set[Hashable] = field(default_factory=set)
    open: set[Hashable] = field(default_factory=set)
    expected: int = 0
    aborted: bool = False
    complete: bool = False
    last_s: float = 0.0

    def held(self, instance: str) -> int:
        """Bytes of the slice of this name; 0 if there is none yet."""
        return self.slices[instance][1] if instance in self.slices else 0

    def closed(self) -> ClosedSeries:
        count, reason = len(self.slices), ""
        if count < self.expected:
            reason = f"{count} of the {self.expected} slices that the sender announced"
        elif self.aborted:
            reason = f"the sender broke off after {count} slices"
        return ClosedSeries(self.tag, tuple(data for data, _ in self.slices.values()), self.nbytes, reason)


class SeriesStore:
    """Takes slices of several series over several associations; safe from any thread.

    A series is closed when as many slices are there as its sender announced, when the one association that brought
    all of it ends in order, or when it is quiet; a scanner that opens an association a slice falls under the last.
    """

    def __init__(self, settings: StoreSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._series: dict[str, _Series] = {}
        self._nbytes = 0
        self._rejected: dict[str, float] = {}  # tag -> time of its last slice

    @property
    def nbytes(self) -> int:
        """Of all slices held, those of closed series until they are forgotten."""
        with self._lock:
            return self._nbytes

    def add(self, encoded: bytes, instance: str, association: Hashable, now_s: float) -> str:
        """Keep one slice, a whole DICOM file in memory; returns its series' tag.

        Raises DicomSeriesError, once a series and then for each further slice of it: the series is given up whole.
        """
        slice_, uid = _anonymous(encoded)
        tag = series_tag(uid)
        size = SLICE_BYTES + len(slice_.get("PixelData") or b"")
        with self._lock:
            if tag in self._rejected:
                self._rejected[tag] = now_s
                raise DicomSeriesError(f"a further slice of series {tag}, which was given up")
            self._check_room(tag, instance, size, now_s)
            series = self._series.setdefault(tag, _Series(tag))
            more = size - series.held(instance)  # one that is sent again takes its own place
            series.slices[instance] = slice_, size
            series.nbytes += more
            self._nbytes += more
            series.associations.add(association)
            series.open.add(association)
            series.last_s = now_s
            if self._settings.use_count:
                series.expected = max(series.expected, _announced(slice_))
            series.complete = len(series.slices) == series.expected
            return tag

    def ended(self, association: Hashable, orderly: bool) -> None:
        """``orderly``: released by the sender; otherwise aborted or lost, and then its series wait for a second try."""
        with self._lock:
            for series in self._series.values():
                if association not in series.open:
                    continue
                series.open.discard(association)
                series.aborted = not orderly
                whole = series.associations == {association} and len(series.slices) > 1 and not series.expected
                series.complete = series.complete or (orderly and whole)

    def due(self, now_s: float) -> list[ClosedSeries]:
        """The series that are closed now; each counts as held until `forget`."""
        quiet_s = self._settings.quiet_s
        with self._lock:
            self._rejected = {tag: last_s for tag, last_s in self._rejected.items() if now_s - last_s < quiet_s}
            ready = [s for s in self._series.values() if s.complete or now_s - s.last_s >= quiet_s]
            return [self._series.pop(series.tag).closed() for series in ready]

    def forget(self, closed: ClosedSeries) -> None:
        """Its memory is free again."""
        with self._lock:
            self._nbytes -= closed.nbytes

    def _check_room(self, tag: str, instance: str, size: int, now_s: float) -> None:
        limits, series = self._settings, self._series.get(tag)
        nbytes = self._nbytes + size - (series.held(instance) if series else 0)
        if nbytes > limits.max_bytes:
            reason = f"{nbytes} bytes in assembly: the limit is {limits.max_bytes}"
        elif not series and len(self._series) >= limits.max_series:
            reason = f"{len(self._series)} series in assembly: the limit is {limits.max_series}"
        elif series and instance not in series.slices and len(series.slices) >= limits.max_slices:
            reason = f"more than {limits.max_slices} slices"
        else:
            return
        if series:
            self._nbytes -= self._series.pop(tag).nbytes
        if len(self._rejected) >= MAX_REJECTED:
            del self._rejected[min(self._rejected, key=self._rejected.get)]
        self._rejected[tag] = now_s
        raise DicomSeriesError(f"series {tag} given up: {reason}")


def series_tag(uid: str) -> str:
    """Eight hex digits that stand for a SeriesInstanceUID in logs; the UID itself can be traced to a patient."""
    return hashlib.sha256(uid.encode()).hexdigest()[:8]


def _anonymous(encoded: bytes) -> tuple[Dataset, str]:
    """The slice without anything but pixels, place and count; and its SeriesInstanceUID."""
    try:
        file = io.BytesIO(encoded)
        kept, pixels = read_header(file)
        if pixels:
            pixels.read_into(kept, file)
        uid = str(kept.get("SeriesInstanceUID") or "")
    except DicomSeriesError:
        raise
    except Exception as error:  # damage can be any exception, and its text may quote the patient
        raise DicomSeriesError(f"a slice that cannot be read ({type(error).__name__})") from None
    if not uid:
        raise DicomSeriesError("a slice without SeriesInstanceUID: expected one, to know its series")
    return kept, uid


def _announced(slice_: Dataset) -> int:
    for name in COUNT_TAGS:
        try:
            count = int(slice_.get(name) or 0)
        except (TypeError, ValueError, OverflowError):
            continue
        if count > 0:
            return count
    return 0
