"""Files written by pydicom or byte by byte; what is read is compared with what pydicom reads of them."""

import io
import struct
import sys
import tracemalloc
from pathlib import Path

import pydicom
import pydicom.data
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from threedme_ros.dicom_elements import COUNT_TAGS, MAX_ELEMENTS, SLICE_TAGS, DicomSeriesError, read_header, says_image

PLACE = (0x0020, 0x0032)
ITEM, ITEM_END, SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
UNDEFINED = 0xFFFFFFFF


def scan(syntax=ExplicitVRLittleEndian, **changes) -> bytes:
    """As a scanner writes it: sequences of both kinds of length, one within another, private tags, a character set."""
    data = pydicom.Dataset()
    data.SpecificCharacterSet, data.PatientName = "ISO_IR 100", "Müller^Jürgen"
    code, region = pydicom.Dataset(), pydicom.Dataset()
    code.CodeValue, code.CodeMeaning = "T-D1100", "Head"
    code.is_undefined_length_sequence_item = True
    region.Rows, region.AnatomicRegionModifierSequence = 99, Sequence([code])  # its Rows are not the slice's
    region.is_undefined_length_sequence_item = True
    data.AnatomicRegionSequence, data.ProcedureCodeSequence = Sequence([region, code]), Sequence([code])
    data["AnatomicRegionSequence"].is_undefined_length = True
    region["AnatomicRegionModifierSequence"].is_undefined_length = True
    data.private_block(0x0029, "SIEMENS CSA HEADER", create=True).add_new(0x10, "OB", bytes(5000))
    data.Rows, data.Columns, data.PixelSpacing, data.SeriesInstanceUID = 5, 6, [0.7, 0.9], "1.2.3"
    data.ImageOrientationPatient = [0.70710678118655, 0, -0.70710678118655, 0, 1, 0]
    data.ImagePositionPatient, data.ImagesInAcquisition = [-10.5, -20, 3], 7
    data.SamplesPerPixel, data.PhotometricInterpretation, data.RescaleSlope = 1, "MONOCHROME2", "0.5"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.PixelData = bytes(range(60))
    for name, value in changes.items():
        setattr(data, name, value)
    if syntax == RLELossless:
        data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
    return saved(data, syntax)


def saved(data, syntax) -> bytes:
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID, data.file_meta.MediaStorageSOPClassUID = syntax, CTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    out = io.BytesIO()
    data.save_as(out, enforce_file_format=True)
    return out.getvalue()


def element(tag, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """Explicit little endian, of an undefined length where one is given."""
    if vr in (b"OB", b"OW", b"SQ", b"UN", b"UT"):
        return struct.pack("<HH2sHI", *tag, vr, 0, len(value) if length is None else length) + value
    return struct.pack("<HH2sH", *tag, vr, len(value)) + value


def implicit(tag, value: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<HHI", *tag, len(value) if length is None else length) + value


def read(encoded: bytes):
    file = io.BytesIO(encoded)
    header, pixels = read_header(file)
    if pixels:
        pixels.read_into(header, file)
    return header


@pytest.mark.parametrize("syntax", (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian))
def test_a_slices_elements_are_those_that_pydicom_reads_and_no_others(syntax):
    encoded = scan(syntax)
    found, theirs = read(encoded), pydicom.dcmread(io.BytesIO(encoded))
    names = {name for name in (*SLICE_TAGS, *COUNT_TAGS, "PixelData") if name in theirs}
    assert set(found.dir()) == names and len(names) == 15
    for name in names:
        assert found[name].value == theirs[name].value, name
    assert (found.Rows, list(found.ImagePositionPatient), found.ImagesInAcquisition) == (5, [-10.5, -20, 3], 7)
    assert found.file_meta.TransferSyntaxUID == syntax


@pytest.mark.filterwarnings("ignore")  # pydicom's, of what is odd in them
def test_the_files_that_come_with_pydicom_are_read_as_pydicom_reads_them():
    """From many makers of scanners, in many syntaxes: of one value representation, of another, of none."""
    names = (*SLICE_TAGS, *COUNT_TAGS, "PixelData")
    refused, equal = [], 0
    for path in sorted(Path(pydicom.data.__file__).parent.rglob("*")):
        if not path.is_file() or (encoded := path.read_bytes())[128:132] != b"DICM":
            continue
        try:
            found = read(encoded)
        except DicomSeriesError as error:
            refused.append(str(error))
            continue
        theirs = pydicom.dcmread(io.BytesIO(encoded), specific_tags=list(names))
        for name in names:
            assert found.get(name) == theirs.get(name), f"{path.name}: {name}"
        equal += 1
    assert equal > 100
    assert all("deflated" in reason or "an offset table of" in reason for reason in refused), refused


def test_encapsulated_pixels_end_at_their_delimiter():
    encoded = scan(RLELossless, PixelData=encapsulate([b"\1" * 70])) + b"\xfc\xff\xfc\xffOB\0\0\4\0\0\0abcd"
    found = read(encoded)
    assert found.PixelData == pydicom.dcmread(io.BytesIO(encoded)).PixelData
    assert found["PixelData"].is_undefined_length


def test_unknown_sequences_of_undefined_length_are_passed_over_in_either_encoding():
    """PS3.5 6.2.2: implicit inside UN; some writers stay explicit there."""
    inside = implicit((0x0028, 0x0010), b"\x63\0"), element((0x0028, 0x0010), b"US", b"\x63\0")
    for content in inside:
        item = implicit(ITEM, length=UNDEFINED) + content + implicit(ITEM_END)
        sequence = element((0x0009, 0x1010), b"UN", item + implicit(SEQUENCE_END), UNDEFINED)
        encoded = scan()
        at = encoded.index(element((0x0010, 0x0010), b"PN", b"")[:6])
        assert read(encoded[:at] + sequence + encoded[at:]).Rows == 5


def test_a_file_that_says_it_is_implicit_and_is_not_is_read_as_it_is():
    explicit = scan()
    at = explicit.index(b"\x02\0\x10\0UI")
    wrong = explicit.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2\0")
    wrong = wrong[: at + 6] + b"\x12\0" + wrong[at + 8 :]
    assert read(wrong).Rows == 5


def replaced(tag, new: bytes, encoded: bytes | None = None) -> bytes:
    encoded = encoded or scan()
    at = encoded.rindex(struct.pack("<HH", *tag))
    (length,) = struct.unpack_from("<H", encoded, at + 6)
    return encoded[:at] + new + encoded[at + 8 + length :]


BAD = [
    (replaced(PLACE, element(PLACE, b"DS", b"1\\" * 120)), "ImagePositionPatient of 121 values: expected at most 6"),
    (replaced(PLACE, element(PLACE, b"DS", b"1" * 300)), "ImagePositionPatient of 300 bytes: expected at most 256"),
    (replaced(PLACE, element(PLACE, b"UN", b"1" * 300)), "ImagePositionPatient of 300 bytes: expected at most 256"),
    (replaced(PLACE, element(PLACE, b"UT", b"1")), "ImagePositionPatient of type UT: expected DS"),
    (replaced(PLACE, element(PLACE, b"SQ", implicit(ITEM) * 9)), "ImagePositionPatient of type SQ: expected DS"),
    (replaced((0x28, 0x10), element((0x28, 0x10), b"US", bytes(4))), "Rows of 4 bytes: expected at most 2"),
    (
        replaced((0x28, 0x04), element((0x28, 0x04), b"UT", b"x" * 99)),
        "PhotometricInterpretation of type UT: expected CS",
    ),
    (scan()[:-72] + element((0x7FE0, 0x10), b"SQ", implicit(ITEM) * 9), "PixelData of type SQ: expected OB or OW"),
    (scan(RLELossless, PixelData=encapsulate([b"ab", b"cd"])), "an offset table of 2 frames: expected one"),
    (scan(RLELossless, PixelData=encapsulate([b"ab"]))[:-9], "PixelData cut off or damaged after 2 items"),
]


@pytest.mark.parametrize(("encoded", "reason"), BAD, ids=[reason for _, reason in BAD])
def test_what_a_slice_cannot_need_is_refused_by_name(encoded, reason):
    with pytest.raises(DicomSeriesError, match=reason):
        read(encoded)


@pytest.mark.parametrize("vr", (b"SQ", b"UN"))
def test_a_sequence_without_end_takes_no_memory_for_its_items(vr):
    encoded = scan()
    at = encoded.index(b"\x10\0\x10\0PN")
    for inside in (implicit(ITEM) * MAX_ELEMENTS, implicit(ITEM, length=UNDEFINED) + implicit((9, 9)) * MAX_ELEMENTS):
        hostile = encoded[:at] + element((0x0009, 0x1010), vr, inside, UNDEFINED) + encoded[at:]
        tracemalloc.start()
        with pytest.raises(DicomSeriesError, match=f"more than {MAX_ELEMENTS} DICOM elements"):
            read_header(io.BytesIO(hostile))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < len(hostile) + (1 << 20)  # BytesIO may copy what it is given


def test_a_directory_or_structure_set_of_any_length_is_no_image_and_no_error():
    """Folders from a scanner or a planning system hold them beside the slices."""
    sequence = element((0x0004, 0x1220), b"SQ", implicit(ITEM) * MAX_ELEMENTS, UNDEFINED)
    encoded = scan().replace(
        CTImageStorage.encode() + b"\0", b"1.2.840.10008.1.3.10".ljust(len(CTImageStorage) + 1, b"\0")
    )
    at = encoded.index(b"\x08\0\x05\0CS")
    header, pixels = read_header(io.BytesIO(encoded[:at] + sequence + encoded[at:]))
    assert header.dir() == [] and pixels is None and not says_image(header)


def test_any_depth_of_nesting_is_passed_over():
    opening = element((0x0008, 0x1140), b"SQ", implicit(ITEM, length=UNDEFINED), UNDEFINED)
    nested = opening * 5000 + (implicit(ITEM_END) + implicit(SEQUENCE_END)) * 5000
    encoded = scan()
    at = encoded.index(b"\x10\0\x10\0PN")
    assert read(encoded[:at] + nested + encoded[at:]).Rows == 5


def test_no_codec_is_looked_up_by_the_name_in_a_file():
    sys.modules.pop("encodings.punycode", None)
    encoded = scan().replace(b"CS\x0a\0ISO_IR 100", b"CS\x0a\0punycode  ")
    assert b"punycode" in encoded and read(encoded).PhotometricInterpretation == "MONOCHROME2"
    assert "encodings.punycode" not in sys.modules


def test_every_place_to_cut_a_file_off_leaves_fewer_elements_or_a_refusal():
    encoded = scan()
    for end in range(400, len(encoded), 7):
        assert set(read(encoded[:end]).dir()) <= {*SLICE_TAGS, *COUNT_TAGS, "PixelData"}
