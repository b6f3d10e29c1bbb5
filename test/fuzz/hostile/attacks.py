"""Known attacks, written down: bombs, claims, nests and paths. None of them is more than some kilobytes."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping

import numpy as np

from . import seeds


def attacks(decoder: str) -> Mapping[str, bytes]:
    """name -> bytes, for ``decoder``; each must be refused."""
    return _ATTACKS.get(decoder, dict)()


def _nifti() -> dict[str, bytes]:
    good = seeds.nifti()

    def with_(offset: int, code: str, *values, of: int = 0) -> bytes:
        data = bytearray(good[of])
        struct.pack_into(code, data, offset, *values)
        return bytes(data)

    return {
        "huge-dims": with_(40, "<8h", 3, 32767, 32767, 32767, 1, 1, 1, 1),
        "negative-dims": with_(40, "<8h", 3, -5, 4, 3, 1, 1, 1, 1),
        "huge-dims-64-bit": with_(16, "<8q", 3, 2**62, 2**62, 2**62, 1, 1, 1, 1, of=1),
        "product-wraps-to-small": with_(16, "<8q", 3, 2**32, 2**32, 1, 1, 1, 1, 1, of=1),
        "nan-pixdim-qform": with_(76, "<4f", float("nan"), float("nan"), 1, 1, of=4),
        "offset-past-the-end": with_(108, "<f", 1e9),
        "offset-nan": with_(108, "<f", float("nan")),
        "offset-64-bit": with_(168, "<q", 2**62, of=1),
        "extension-of-2-gb": with_(348, "<4B2i", 1, 0, 0, 0, 2**31 - 1, 6, of=5)[:-1],
        "slope-infinite": with_(112, "<f", float("inf")),
        "slope-infinite-in-float32": with_(176, "<d", 1e300, of=1),
        "slope-zero-in-float32": with_(176, "<d", 1e-300, of=1),
        "slope-makes-infinite-voxels": with_(112, "<f", 3e38, of=6),
        "gzip-announced-as-plain": gzip.compress(good[0], mtime=0),
    }


def _nifti_gzip() -> dict[str, bytes]:
    good = seeds.nifti()[0]
    huge = bytearray(good)
    struct.pack_into("<8h", huge, 40, 3, 60, 60, 18, 1, 1, 1, 1)
    packed = gzip.compress(good, mtime=0)
    return {
        "bomb-behind-the-voxels": gzip.compress(good + bytes(10 << 20), mtime=0),
        "bomb-of-members": packed + gzip.compress(bytes(1 << 20), mtime=0) * 4,
        "endless-empty-members": gzip.compress(b"", mtime=0) * 2000,
        "claims-more-than-it-holds": gzip.compress(bytes(huge), mtime=0),
        "trailing-garbage": packed + b"garbage",
        "wrong-checksum": packed[:-8] + bytes(8),
        "gzip-in-gzip": gzip.compress(packed, mtime=0),
        "only-the-magic": b"\x1f\x8b",
    }


def _nrrd() -> dict[str, bytes]:
    head, _, body = seeds.nrrd()[0].partition(b"\n\n")

    def line(old: bytes, new: bytes) -> bytes:
        assert old in head
        return head.replace(old, new) + b"\n\n" + body

    sizes = b"sizes: 5 4 3"
    return {
        "data-file": line(sizes, sizes + b"\ndata file: /etc/passwd"),
        "data-file-list": line(sizes, sizes + b"\ndatafile: LIST\n/etc/passwd"),
        "byte-skip": line(sizes, sizes + b"\nbyte skip: -1"),
        "line-skip": line(sizes, sizes + b"\nline skip: 99999999999"),
        "sizes-of-1500-digits": line(sizes, b"sizes: " + b" ".join([b"9" * 1500] * 3)),
        "sizes-of-5000-digits": line(sizes, b"sizes: " + b"9" * 5000 + b" 4 3"),
        "gzip-bomb": line(b"encoding: raw", b"encoding: gzip").replace(body, gzip.compress(bytes(10 << 20), mtime=0)),
        "many-brackets": line(b"space origin: (", b"space origin: " + b"(" * 3000),
        "no-end": head + b"\n#" * 300,
    }


def _meta_image() -> dict[str, bytes]:
    text = seeds.meta_image()[2]
    return {
        "file-elsewhere": text.replace(b"LOCAL", b"/etc/passwd"),
        "file-above": text.replace(b"LOCAL", b"../../../../etc/passwd"),
        "list-of-files": text.replace(b"LOCAL", b"LIST\n/etc/passwd\n/etc/hosts\n/etc/hostname"),
        "file-pattern": text.replace(b"LOCAL", b"/proc/self/fd/%d 0 9 1"),
        "negative-dims": text.replace(b"5 4 3", b"-5 4 -3"),
        "dims-of-5000-digits": text.replace(b"5 4 3", b"9" * 5000 + b" 4 3"),
        "ranks-without-end": text.replace(b"NDims = 3", b"NDims = 2000000000"),
        "zlib-bomb": text.replace(b"NDims", b"CompressedData = True\nNDims")[:-120] + zlib.compress(bytes(10 << 20)),
        "header-size": text.replace(b"NDims", b"HeaderSize = -1\nNDims"),
    }


def _dicom() -> dict[str, bytes]:
    good = seeds.slice_bytes(1)
    place = good.index(struct.pack("<HH", 0x0028, 0x0002))
    open_item = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = deflate.compress(bytes(10 << 20)) + deflate.flush()
    deflated = seeds.slice_bytes(1, "1.2.840.10008.1.2.1.99")
    start = 132 + 12 + struct.unpack_from("<I", deflated, 140)[0]
    return {
        "nested-2000-deep": good[:132] + good[132:place] + open_item * 2000 + good[place:],
        "huge-rows-and-columns": seeds.slice_bytes(1, Rows=65535, Columns=65535),
        "negative-frames": seeds.slice_bytes(1, NumberOfFrames=2**31 - 1),
        "samples": seeds.slice_bytes(1, SamplesPerPixel=65535),
        "not-a-place": seeds.slice_bytes(1, ImagePositionPatient=["1e400", "0", "0"]),
        "deflate-bomb": deflated[:start] + bomb,
        "claims-4-gb": good[:-68] + struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, 0xFFFFFFFE) + bytes(40),
        "cut": good[: len(good) // 2],
    }


def _igtl() -> dict[str, bytes]:
    image, transform = seeds.igtl()[0], seeds.igtl()[3]
    return {
        "claims-all-memory": image[:42] + struct.pack(">Q", 2**64 - 1) + image[50:],
        "claims-1-gb": image[:42] + struct.pack(">Q", 1 << 30) + image[50:],
        "wrong-checksum": transform[:50] + bytes(8) + transform[58:],
        "http": b"GET / HTTP/1.1\r\nHost: robot\r\n\r\n" + b"x" * 60,
        "half": image[:-7],
    }


def _safetensors() -> dict[str, bytes]:
    (good,) = seeds.weights("prompt")()
    (size,) = struct.unpack_from("<Q", good)
    head, tensors = json.loads(good[8 : 8 + size]), good[8 + size :]

    def packed(header: object, claim: int | None = None) -> bytes:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(text) if claim is None else claim) + text + tensors

    first, second, *_ = (name for name in head if name != "__metadata__")
    overlap = head | {first: head[first] | {"data_offsets": head[second]["data_offsets"]}}
    absurd = head | {first: head[first] | {"shape": [2**40, 2**40]}}
    return {
        "header-of-100-gb": packed(head, 100 << 30),
        "overlapping-offsets": packed(overlap),
        "absurd-shape": packed(absurd),
        "doubled-keys": packed(json.dumps(head).encode()[:-1] + b', "__metadata__": {"format": "x"}}'),
        "deep-json": packed(b'{"a":' * 800),
        "pickle": b"\x80\x04cos\nsystem\n(S'id'\ntR.",
    }


def _yaml() -> dict[str, bytes]:
    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    laughs += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)) + "structures: *a9\n"
    return {
        "billion-laughs": laughs.encode(),
        "merge-laughs": laughs.replace("[x, x", "[{x: 1}, x").encode() + b"b: {<<: *a9}\n",
        "within-itself": b"structures: &a [*a]\n",
        "deep": b"structures: " + b"[" * 2000 + b"]" * 2000,
        "deep-block": b"\n".join(b" " * i + b"- -" for i in range(60)),
        "python-object": b"structures: !!python/object/apply:os.system ['id']\n",
        "python-module": b"structures: !!python/module:antigravity\n",
        "no-date": b"structures: 2001-99-99\n",
        "number-of-5000-digits": b"structures: " + b"9" * 5000,
        "not-utf-8": b"structures: [\xff\xfe]\n",
        "long-line": b"structures: [{" + b"a" * 3000 + b": 1}]",
    }


def _json() -> dict[str, bytes]:
    row = {"id": 1, "name": "liver", "colour": [1, 2, 3], "margin_mm": 2.5, "role": "no-go"}

    def table(**changes) -> bytes:
        return json.dumps([row | changes]).encode()

    return {
        "deep": b"[" * 3000,
        "deep-and-closed": b"[" * 400 + b"]" * 400,
        "number-of-5000-digits": b'[{"id": ' + b"9" * 5000 + b"}]",
        "doubled-key": json.dumps([row]).encode().replace(b'"id": 1', b'"id": 1, "id": 2'),
        "margin-nan": table(margin_mm=float("nan")),
        "id-true": table(id=True),
        "name-with-escapes": table(name="\x1b[2J\nliver"),
        "name-of-3000-characters": table(name="a" * 3000),
        "unhashable-role": table(role=["no-go"]),
    }


def _label_info() -> dict[str, bytes]:
    return {name: b'{"structures": ' + data + b"}" for name, data in _json().items() if not name.startswith("deep")}


def _npz() -> dict[str, bytes]:
    def archive(header: bytes, body: bytes = b"", name: str = "train_images.npy") -> bytes:
        out, pad = io.BytesIO(), b" " * (-(len(header) + 11) % 64) + b"\n"
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
            text = header + pad
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(info, b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body)
        return out.getvalue()

    pickled = io.BytesIO()
    np.savez(pickled, train_images=np.array([{"a": 1}], dtype=object))
    return {
        "claims-a-petabyte": archive(b"{'descr': '|u1', 'fortran_order': False, 'shape': (1125899906842624,), }"),
        "negative-shape": archive(b"{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 4, 4, 4), }"),
        "bomb": archive(b"{'descr': '|u1', 'fortran_order': False, 'shape': (1, 4, 4, 4), }", bytes(10 << 20)),
        "call-in-the-header": archive(b"{'descr': __import__('os').system('id'), 'shape': ()}"),
        "pickled-objects": pickled.getvalue(),
        "a-pickle": b"\x80\x04cos\nsystem\n(S'id'\ntR.",
        "no-zip": b"PK\x03\x04" + b"\0" * 100,
    }


def _dataset() -> dict[str, bytes]:
    return {"deep": b"[" * 3000, "list": b"[1, 2]", "not-utf-8": b'{"labels": "\xff"}', "null": b"null"}


_ATTACKS: dict[str, Callable[[], dict[str, bytes]]] = {
    "nifti": _nifti, "nifti_gzip": _nifti_gzip, "nrrd": _nrrd, "meta_image": _meta_image,
    "dicom_store": _dicom, "igtl": _igtl, "anatomy_yaml": _yaml, "task_yaml": _yaml, "anatomy_json": _json,
    "label_info": _label_info, "medmnist_npz": _npz,
    "dataset": _dataset, "record": _dataset,
    "prompt": _safetensors,
}  # fmt: skip
