"""Damage that knows the format: a header field that lies, with checksums, lengths and wrappings that still hold.

Without it nearly every input would fail at the first checksum, and what lies behind would never be tried.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Sequence

from .mutation import MAX_BYTES, Mutator, mutate_bytes, number_bytes, text_mutator

_NIFTI_1 = {40 + 2 * i: "h" for i in range(8)} | {70: "h", 72: "h", 108: "f", 112: "f", 116: "f", 123: "B", 0: "i"}
_NIFTI_1 |= dict.fromkeys((*range(76, 108, 4), *range(256, 328, 4)), "f") | {252: "h", 254: "h", 344: "i"}
_NIFTI_2 = {16 + 8 * i: "q" for i in range(8)} | {12: "h", 14: "h", 168: "q", 176: "d", 184: "d", 500: "i", 0: "i"}
_NIFTI_2 |= dict.fromkeys((*range(104, 168, 8), *range(352, 496, 8)), "d") | {344: "i", 348: "i", 4: "q"}
_IGTL_HEADER = struct.Struct(">H12s20sIIQQ")
_IGTL_BODY = {0: ">H", 2: ">B", 3: ">B", 4: ">B", 5: ">B"} | {6 + 2 * i: ">H" for i in range(3)}
_IGTL_BODY |= {12 + 4 * i: ">f" for i in range(12)} | {60 + 2 * i: ">H" for i in range(6)} | {12: ">I", 4: ">I"}


def nifti(data: bytes, rng: random.Random) -> bytes:
    """A header field gets another number; now and then the whole is damaged blindly."""
    if rng.random() < 0.3 or len(data) < 352:
        return mutate_bytes(data, rng)
    out = bytearray(data)
    fields = _NIFTI_2 if 540 in (struct.unpack_from(f"{order}i", data)[0] for order in "<>") else _NIFTI_1
    order = "<" if struct.unpack_from("<i", data)[0] in (348, 540) else ">"
    for _ in range(rng.choice((1, 1, 2))):
        offset, code = rng.choice(list(fields.items()))
        value = number_bytes(rng, order + code) if rng.random() < 0.8 else rng.randbytes(struct.calcsize(code))
        if offset + len(value) <= len(out):
            out[offset : offset + len(value)] = value
    return bytes(out)


def gzipped(inner: Mutator) -> Mutator:
    """``inner`` within the wrapping, which is made anew: one member, several, stored, with a tail; or raw damage."""

    def mutate(data: bytes, rng: random.Random) -> bytes:
        if rng.random() < 0.25:
            return mutate_bytes(data, rng)
        try:
            plain = zlib.decompressobj(31).decompress(data, 4 * MAX_BYTES)
        except zlib.error:
            return mutate_bytes(data, rng)
        plain = inner(plain, rng)
        if rng.random() < 0.05:
            plain += bytes(rng.choice((1, 1000, 1 << 20)))
        if rng.random() < 0.1:
            cut = rng.randrange(len(plain) + 1)
            return (gzip.compress(plain[:cut], 1) + gzip.compress(plain[cut:], 1))[:MAX_BYTES]
        return (zlib.compress(plain, rng.choice((0, 1, 9)), wbits=31) + rng.choice((b"",) * 9 + (b"tail",)))[:MAX_BYTES]

    return mutate


def nrrd(words: Sequence[str]) -> Mutator:
    """Lines of the header; the voxels stay, so that a header that tells the truth is still accepted."""
    header = text_mutator(words)

    def mutate(data: bytes, rng: random.Random) -> bytes:
        head, gap, voxels = data.partition(b"\n\n")
        if not gap or rng.random() < 0.15:
            return mutate_bytes(data, rng)
        return (header(head, rng) + gap + voxels)[:MAX_BYTES]

    return mutate


def meta_image(words: Sequence[str]) -> Mutator:
    """The same for MetaImage, whose header ends with the line ElementDataFile."""
    header = text_mutator(words)

    def mutate(data: bytes, rng: random.Random) -> bytes:
        head, key, rest = data.partition(b"ElementDataFile")
        value, newline, voxels = rest.partition(b"\n")
        if not key or rng.random() < 0.15:
            return mutate_bytes(data, rng)
        if rng.random() < 0.1:
            value = rng.choice((b" = /etc/passwd", b" = LIST", b" = ../x.raw", b" = %03d.raw 1 3 1", b" = "))
        return (header(head, rng) + key + value + newline + voxels)[:MAX_BYTES]

    return mutate


def igtl(data: bytes, rng: random.Random) -> bytes:
    """Header and body of one message; size and checksum are set right again, mostly."""
    from threedme_ros.igtl.wire import crc64

    if len(data) < _IGTL_HEADER.size or rng.random() < 0.15:
        return mutate_bytes(data, rng)
    fields = list(_IGTL_HEADER.unpack_from(data))
    body = bytearray(data[_IGTL_HEADER.size :])
    choice = rng.random()
    if choice < 0.2:
        fields[0] = rng.choice((0, 1, 2, 3, 4, 65535))
    elif choice < 0.35:
        fields[1] = rng.choice((b"IMAGE", b"TRANSFORM", b"STRING", b"\xff" * 12, rng.randbytes(12)))
    elif choice < 0.5:
        fields[2] = mutate_bytes(fields[2], rng)[:20]
    elif choice < 0.6:
        fields[3], fields[4] = rng.randrange(1 << 32), rng.randrange(1 << 32)
    elif choice < 0.9:
        for _ in range(rng.choice((1, 1, 2))):
            offset, code = rng.choice(list(_IGTL_BODY.items()))
            value = number_bytes(rng, code)
            if fields[0] > 1 and rng.random() < 0.7:
                offset += 12  # behind the extended header
            body[offset : offset + len(value)] = value
    else:
        body = bytearray(mutate_bytes(bytes(body), rng))
    fields[5] = len(body) if rng.random() < 0.95 else int.from_bytes(number_bytes(rng, ">q"), "big")
    fields[6] = crc64(bytes(body)) if rng.random() < 0.95 else rng.getrandbits(64)
    return (_IGTL_HEADER.pack(*fields) + bytes(body))[:MAX_BYTES]


def dicom(data: bytes, rng: random.Random) -> bytes:
    """Elements of an explicit little-endian file: out, twice, another type, length or value, or buried in sequences."""
    elements = _dicom_elements(data)
    if len(elements) < 3 or rng.random() < 0.25:
        return mutate_bytes(data, rng)
    for _ in range(rng.choice((1, 1, 2))):
        at = rng.randrange(len(elements))
        tag, vr, value = elements[at]
        choice = rng.randrange(10)
        if choice == 0:
            del elements[at]
        elif choice == 8:
            sizes = rng.choice((0, 1, 4, 5, 6, 7, 300, 13000, 65535)), rng.choice((0, 1, 5, 6, 300, 13000, 65535))
            elements[-1] = b"", b"", other_frame_size(_dicom_bytes(*elements[-1], rng), *sizes)
        elif choice == 9:
            many = rng.choice((2, 6, 7, 200, 5000))
            elements[at] = (
                tag,
                rng.choice((vr, b"UT", b"UN", b"SQ", b"UC")),
                rng.choice((b"1\\", b"\1\0", b"a-")) * many,
            )
        elif choice == 1:
            elements.insert(rng.randrange(len(elements) + 1), elements[at])
        elif choice == 2:
            elements[at] = (
                tag,
                rng.choice((b"SQ", b"OB", b"OW", b"UN", b"US", b"DS", b"IS", b"FD", b"AT", b"UT", b"??")),
                value,
            )
        elif choice == 3:
            elements[at] = tag, vr, mutate_bytes(value, rng)
        elif choice == 4 and vr in (b"US", b"SS", b"UL", b"FD", b"FL"):
            code = {b"US": "<h", b"SS": "<h", b"UL": "<i", b"FD": "<d", b"FL": "<f"}[vr]
            elements[at] = tag, vr, number_bytes(rng, code)
        elif choice == 5:
            elements[at] = tag, vr, rng.choice(_DICOM_TEXTS)
        elif choice == 6:
            depth = rng.choice((1, 3, 40, 1500))
            item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
            opening = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + item
            elements.insert(at, (b"", b"", opening * depth))
        else:
            fragments = b"".join(
                struct.pack("<HHI", 0xFFFE, 0xE000, size) + rng.randbytes(min(size, 40))
                for size in (0, rng.choice((0, 10, 40, 2**31, 2**32 - 2)))
            )
            elements[-1] = b"", b"", struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF) + fragments
    return (data[:132] + b"".join(_dicom_bytes(*element, rng) for element in elements))[:MAX_BYTES]


def other_frame_size(data: bytes, columns: int, rows: int) -> bytes:
    """``data`` with the sizes that a JPEG or JPEG 2000 frame in it says of itself changed; the same if it has none."""
    if (at := data.find(b"\xff\x4f\xff\x51")) >= 0:
        return data[: at + 8] + struct.pack(">2L", columns, rows) + data[at + 16 :]
    if (at := data.find(b"\xff\xc0\0\x0b")) >= 0:
        return data[: at + 5] + struct.pack(">2H", rows, columns) + data[at + 9 :]
    return data


_DICOM_TEXTS = (
    b"",
    b"1e999",
    b"nan ",
    b"-1",
    b"0 ",
    b"1\\2",
    b"1\\0\\0\\0\\1\\0",
    b"\\\\\\",
    b"9" * 200,
    b"99999999999 ",
)
_DICOM_TEXTS += (b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.5", b"1.2.840.10008.1.2.4.50", b"1.2.840.10008.1.2.2")
_LONG = (b"OB", b"OW", b"OF", b"OD", b"SQ", b"UN", b"UT", b"UC", b"UR", b"OL", b"OV", b"SV", b"UV")


def _dicom_elements(data: bytes) -> list[tuple[bytes, bytes, bytes]]:
    """(tag, VR, value) of each, as far as the lengths make sense; what follows is one piece without a tag."""
    elements, at = [], 132
    while at + 12 <= len(data):
        tag, vr = data[at : at + 4], data[at + 4 : at + 6]
        long = vr in _LONG
        size = struct.unpack_from("<I" if long else "<H", data, at + (8 if long else 6))[0]
        start = at + (12 if long else 8)
        if not vr.isalpha() or start + size > len(data):
            break
        elements.append((tag, vr, data[start : start + size]))
        at = start + size
    return [*elements, (b"", b"", data[at:])] if at < len(data) else elements


def _dicom_bytes(tag: bytes, vr: bytes, value: bytes, rng: random.Random) -> bytes:
    if not tag:
        return value
    value += b" " * (len(value) % 2)
    size = len(value) if rng.random() < 0.995 else rng.choice((0, 1, 0xFFFF, 0xFFFFFFFF, 0x7FFFFFFF))
    if vr in _LONG:
        return tag + vr + b"\0\0" + struct.pack("<I", size) + value
    return tag + vr + struct.pack("<H", size & 0xFFFF) + value


def safetensors(words: Sequence[str]) -> Mutator:
    """The header's JSON, the metadata (with the hash made right again, so that it is looked at), or the tensors."""
    text = text_mutator(words)

    def mutate(data: bytes, rng: random.Random) -> bytes:
        if len(data) < 8 or rng.random() < 0.1:
            return mutate_bytes(data, rng)
        (size,) = struct.unpack_from("<Q", data)
        head, tensors = data[8 : 8 + size], data[8 + size :]
        choice = rng.random()
        if choice < 0.3:
            head = text(head, rng)
        elif choice < 0.35:
            tensors = mutate_bytes(tensors, rng)
        else:
            head = _other_metadata(head, tensors, rng, text)
        size = len(head) if rng.random() < 0.97 else int.from_bytes(number_bytes(rng, "<q"), "little")
        return (struct.pack("<Q", size) + head + tensors)[:MAX_BYTES]

    return mutate


def _other_metadata(head: bytes, tensors: bytes, rng: random.Random, text: Mutator) -> bytes:
    """``head`` with one metadata value (or a tensor's name) changed and the content hash of the result."""
    from safetensors.torch import load

    from threedme_ros.model.weights_file import content_hash

    try:
        header = json.loads(head)
        metadata = dict(header.get("__metadata__") or {})
        if rng.random() < 0.1 and len(header) > 1:
            name = rng.choice([key for key in header if key != "__metadata__"])
            header[name + "x"] = header.pop(name)
        elif metadata:
            key = rng.choice(sorted(metadata))
            metadata[key] = text(str(metadata[key]).encode(), rng).decode("utf-8", "replace")
            if rng.random() < 0.05:
                del metadata[key]
        header["__metadata__"] = metadata
        bare = json.dumps(header).encode()
        metadata["hash"] = content_hash(metadata, load(struct.pack("<Q", len(bare)) + bare + tensors))
        return json.dumps(header).encode()
    except Exception:  # damaged before: whatever it is, more damage is as good
        return text(head, rng)


def npy(data: bytes, rng: random.Random) -> bytes:
    """The header's text, its length set right again; or raw damage."""
    if len(data) < 12 or rng.random() < 0.3:
        return mutate_bytes(data, rng)
    end = 10 + struct.unpack_from("<H", data, 8)[0]
    text = _NPY_HEADER(data[10:end].rstrip(), rng).replace(b"\n", b" ")[:4000]
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return (data[:8] + struct.pack("<H", len(text)) + text + data[end:])[:MAX_BYTES]


_NPY_HEADER = text_mutator(
    (
        "'descr': '|O'",
        "'|u1'",
        "'<f2'",
        "'<i8'",
        "True",
        "(",
        ")",
        ",",
        "'shape'",
        "1 << 40",
        "lambda: 0",
        "4j",
        "0x",
        "1L",
    )
)


def torch_zip(data: bytes, rng: random.Random) -> bytes:
    """What `torch.save` wrote: a member is damaged, mostly the pickle, in a zip that is whole; or raw damage."""
    if rng.random() < 0.2:
        return mutate_bytes(data, rng)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {entry.filename: archive.read(entry) for entry in archive.infolist()[:12]}
        name = rng.choice(sorted(members) + [name for name in members if name.endswith("data.pkl")] * 12)
    except Exception:
        return mutate_bytes(data, rng)
    members[name] = mutate_bytes(members[name], rng)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name or "x"), content)
    return out.getvalue()[:MAX_BYTES]


def npz(data: bytes, rng: random.Random) -> bytes:
    """The zip stays whole round a member whose .npy header or voxels are damaged; or raw damage."""
    if rng.random() < 0.3:
        return mutate_bytes(data, rng)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(entry.filename, archive.read(entry)) for entry in archive.infolist()[:12]]
    except Exception:
        return mutate_bytes(data, rng)
    at = rng.randrange(len(members) or 1)
    if members:
        name, content = members[at]
        if rng.random() < 0.7 and len(content) > 10:
            text = _NPY_HEADER(content[10:128], rng).replace(b"\n", b" ")[:4000]
            text += b" " * (-(len(text) + 11) % 64) + b"\n"
            content = content[:8] + struct.pack("<H", len(text)) + text + content[128:]
        else:
            content = mutate_bytes(content, rng)
        members[at] = (name if rng.random() < 0.9 else rng.choice(("x.npy", "../x.npy", "/etc/passwd", ""))), content
    out = io.BytesIO()
    with zipfile.ZipFile(
        out, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
    ) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name or "x"), content)
    return out.getvalue()[:MAX_BYTES]
