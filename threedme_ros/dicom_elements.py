"""The few elements of a DICOM file that a slice needs, found without reading any other. No pydicom parser runs here.

pydicom builds an object of every element of a sequence of undefined length, wanted or not, takes a value of any type
and length, and looks up the codec that a file names. Here the headers of elements are walked over with a bound on their
count; a value is read when its tag is wanted and its type and length are what the standard's dictionary says.
"""

from __future__ import annotations

import io
import logging
import os
import struct
from dataclasses import dataclass
from functools import cache
from typing import IO, TYPE_CHECKING

from threedme_ros.volume import VolumeIOError

if TYPE_CHECKING:
    from pydicom import Dataset

SLICE_TAGS = (
    "Columns",
    "Rows",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "PixelSpacing",
    "SeriesInstanceUID",
    "PhotometricInterpretation",
    "SamplesPerPixel",
    "NumberOfFrames",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PlanarConfiguration",
    "RescaleSlope",
    "RescaleIntercept",
)
"""All that a slice's place and values need, beside the pixels themselves."""
COUNT_TAGS = ("NumberOfSeriesRelatedInstances", "ImagesInAcquisition")
"""Where a sender may say how many slices the series has; the first one present counts."""
MAX_ELEMENTS = 1 << 16
"""Elements, items and fragments looked at in one file. A CT slice has some hundreds, a compressed one some more."""
MAX_VALUE_BYTES = 256
"""Of a text: six numbers of ImageOrientationPatient are 101 by the standard, somewhat more by some scanners."""
MAX_VALUES = 6
DEFLATED = "1.2.840.10008.1.2.1.99"
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PIXEL_DATA = 0x7FE00010
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
"""Value representations whose length takes four bytes."""


class DicomSeriesError(VolumeIOError):
    """The files are not one straight, evenly spaced series of single-frame greyscale slices."""


class _TooManyElementsError(DicomSeriesError):
    """More than `MAX_ELEMENTS`: no header of a slice, but a directory or the contours of structures may have them."""


@dataclass(frozen=True)
class Pixels:
    """Where a file's PixelData lies: ``nbytes`` from ``start``, as far as they are there."""

    vr: str
    start: int
    nbytes: int
    encapsulated: bool
    little: bool

    def read_into(self, header: Dataset, file: IO[bytes]) -> None:
        from pydicom.dataelem import RawDataElement
        from pydicom.tag import BaseTag

        file.seek(self.start)
        value = file.read(self.nbytes)
        length = _UNDEFINED if self.encapsulated else len(value)
        header[_PIXEL_DATA] = RawDataElement(
            BaseTag(_PIXEL_DATA), self.vr, length, value, self.start, False, self.little
        )


def read_header(file: IO[bytes]) -> tuple[Dataset, Pixels | None]:
    """`SLICE_TAGS` and `COUNT_TAGS` of a DICOM file as far as they are there, not decoded; and where its pixels lie.

    Raises pydicom's InvalidDicomError where the file does not say it is DICOM, DicomSeriesError where it asks for more
    than a slice can need.
    """
    import pydicom
    from pydicom.dataset import FileMetaDataset
    from pydicom.errors import InvalidDicomError

    logging.getLogger("pydicom").disabled = True  # for good: what it logs quotes the file, patient's name and all
    if file.read(132)[128:] != b"DICM":
        raise InvalidDicomError("no DICM after 128 bytes: expected a DICOM file")
    header, walk = pydicom.Dataset(), _Walk(file)
    header.file_meta = FileMetaDataset()
    _read_meta(walk, header.file_meta)
    syntax = str(header.file_meta.get("TransferSyntaxUID") or "")
    if syntax == DEFLATED:
        raise DicomSeriesError("deflated DICOM: expected a transfer syntax whose size is bounded by the file's")
    walk.little = syntax != _BIG_ENDIAN
    try:
        return header, _read_elements(walk, header)
    except _TooManyElementsError:
        if says_image(header) or "Rows" in header:
            raise
        return header, None


def says_image(header: Dataset) -> bool:
    kind = header.file_meta.get("MediaStorageSOPClassUID")
    return isinstance(kind, str) and getattr(kind, "name", "").endswith("Image Storage")


def _read_meta(walk: _Walk, meta: Dataset) -> None:
    while (element := walk.next(implicit=False)) and element.tag >> 16 == 2:
        if element.tag in _meta_tags():
            meta[element.tag] = walk.value(element, _meta_tags()[element.tag])
        else:
            walk.skip(element)
    if element:
        walk.back_to(element)


def _read_elements(walk: _Walk, header: Dataset) -> Pixels | None:
    implicit = walk.looks_implicit()  # what a file does counts, not what it says
    while element := walk.next(implicit):
        if element.tag == _PIXEL_DATA:
            return walk.pixels(element)
        if element.tag in _slice_tags():
            header[element.tag] = walk.value(element, _slice_tags()[element.tag])
        else:
            walk.skip(element)
    return None


@cache
def _slice_tags() -> dict[int, str]:
    """tag -> value representation."""
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    tags = [tag_for_keyword(name) for name in (*SLICE_TAGS, *COUNT_TAGS)]
    return {tag: str(dictionary_VR(tag)) for tag in tags}


@cache
def _meta_tags() -> dict[int, str]:
    from pydicom.datadict import tag_for_keyword

    return {tag_for_keyword(name): "UI" for name in ("TransferSyntaxUID", "MediaStorageSOPClassUID")}


@dataclass(frozen=True)
class _Element:
    """``vr``: empty where it is implicit. ``header`` and ``start``: offsets of the element and of its value."""

    tag: int
    vr: str
    length: int
    header: int
    start: int
    implicit: bool


class _Walk:
    """From the header of one element to that of the next."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._size = file.seek(0, io.SEEK_END)
        file.seek(132)
        self._looked_at = 0
        self.little = True

    def next(self, implicit: bool) -> _Element | None:
        """None at the end of the file, also at one that is cut off."""
        self._looked_at += 1
        if self._looked_at > MAX_ELEMENTS:
            raise _TooManyElementsError(f"more than {MAX_ELEMENTS} DICOM elements: expected the header of one slice")
        at = self._file.tell()
        head = self._file.read(8)
        if len(head) < 8:
            return None
        order, vr = "<" if self.little else ">", head[4:6]
        group, number = struct.unpack_from(order + "2H", head)
        tag = group << 16 | number
        if implicit or group == 0xFFFE or not _is_vr(vr):  # some writers switch to implicit within a file
            (length,) = struct.unpack_from(order + "L", head, 4)
            return _Element(tag, "", length, at, at + 8, implicit)
        if vr in _LONG:
            more = self._file.read(4)
            if len(more) < 4:
                return None
            return _Element(tag, vr.decode(), *struct.unpack(order + "L", more), at, at + 12, implicit)
        return _Element(tag, vr.decode(), *struct.unpack_from(order + "H", head, 6), at, at + 8, implicit)

    def back_to(self, element: _Element) -> None:
        self._file.seek(element.header)

    def looks_implicit(self) -> bool:
        at = self._file.tell()
        head = self._file.read(6)
        self._file.seek(at)
        return len(head) == 6 and not _is_vr(head[4:])

    def skip(self, element: _Element) -> None:
        """Past the value; of one of undefined length past its delimiter, however deep it is nested."""
        if element.length != _UNDEFINED:
            self._file.seek(element.length, os.SEEK_CUR)
            return
        modes = [element.implicit]  # of each sequence and item that is open
        while modes and (inner := self.next(modes[-1])):
            if inner.tag in (_ITEM_END, _SEQUENCE_END):
                modes.pop()
            elif inner.length != _UNDEFINED:
                self._file.seek(inner.length, os.SEEK_CUR)
            elif inner.tag == _ITEM:
                modes.append(modes[-1] or self.looks_implicit())
            else:
                modes.append(modes[-1])

    def value(self, element: _Element, vr: str):
        """A RawDataElement of ``vr``, what the dictionary says of this tag."""
        from pydicom.dataelem import RawDataElement
        from pydicom.tag import BaseTag

        allowed = {"DS", "IS"} if vr in ("DS", "IS") else {vr}  # numbers as text: writers take one for the other
        written = vr if element.vr in ("", "UN") else element.vr  # UN: an archive that did not know the tag
        if written not in allowed:
            raise DicomSeriesError(f"{_name(element)} of type {element.vr}: expected {vr}")
        most = 2 if vr == "US" else MAX_VALUE_BYTES
        if element.length > most:
            raise DicomSeriesError(f"{_name(element)} of {element.length} bytes: expected at most {most}")
        value = self._file.read(element.length)
        if value.count(b"\\") >= MAX_VALUES and vr != "US":
            count = value.count(b"\\") + 1
            raise DicomSeriesError(f"{_name(element)} of {count} values: expected at most {MAX_VALUES}")
        tag = BaseTag(element.tag)
        return RawDataElement(tag, written, len(value), value or None, element.start, False, self.little)

    def pixels(self, element: _Element) -> Pixels:
        if element.vr not in ("OB", "OW", ""):
            raise DicomSeriesError(f"PixelData of type {element.vr}: expected OB or OW")
        end = element.start + element.length
        if element.length == _UNDEFINED:
            end = self._end_of_fragments()
        vr, encapsulated = element.vr or "OW", element.length == _UNDEFINED
        return Pixels(vr, element.start, min(end, self._size) - element.start, encapsulated, self.little)

    def _end_of_fragments(self) -> int:
        """Where the delimiter of encapsulated pixels lies, or the end of a file that is cut off."""
        fragments = 0
        while fragment := self.next(implicit=True):
            if fragment.tag == _SEQUENCE_END:
                return fragment.header
            if fragment.tag != _ITEM:
                break
            most = _UNDEFINED if fragments else 4
            if fragment.length > most:
                frames = fragment.length // 4
                raise DicomSeriesError(f"PixelData with an offset table of {frames} frames: expected one frame")
            fragments += 1
            self._file.seek(fragment.length, os.SEEK_CUR)
        raise DicomSeriesError(f"PixelData cut off or damaged after {fragments} items: expected their end")


def _is_vr(code: bytes) -> bool:
    return code.isalpha() and code.isupper()


def _name(element: _Element) -> str:
    from pydicom.datadict import keyword_for_tag

    return keyword_for_tag(element.tag)
