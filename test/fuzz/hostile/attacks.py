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

from . import seeds, structure


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
    open_item = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = deflate.compress(bytes(5 << 20)) + deflate.flush()
    deflated = seeds.slice_bytes(1, "1.2.840.10008.1.2.1.99")
    start = 132 + 12 + struct.unpack_from("<I", deflated, 140)[0]
    eight = seeds.dicom()[-2:]  # JPEG and JPEG 2000 of 6 x 5 pixels
    place = good.index(struct.pack("<HH", 0x0020, 0x0032))
    implicit = seeds.slice_bytes(1, "1.2.840.10008.1.2")
    implicit_place = implicit.index(struct.pack("<HH", 0x0020, 0x0032))
    (length,) = struct.unpack_from("<I", implicit, implicit_place + 4)
    numbers = b"1\\" * 100
    runs = struct.pack("<16L", 2, 64, 68, *[0] * 13) + b"\x81\0" * 50
    items = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 10
    pixels = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"SQ", 0, len(items)) + items
    return {
        "jpeg-of-another-size": structure.other_frame_size(eight[0], 13000, 13000),
        "jpeg-2000-of-another-size": structure.other_frame_size(eight[1], 13000, 13000),
        "rle-runs": seeds.encapsulated(runs, "1.2.840.10008.1.2.5"),
        "rle-segments-without-end": seeds.encapsulated(b"\2" + bytes(63), "1.2.840.10008.1.2.5"),
        "two-frames": seeds.encapsulated(b"", "1.2.840.10008.1.2.5", offsets=(0, 8)),
        "place-of-100-numbers": implicit[: implicit_place + 4]
        + struct.pack("<I", len(numbers))
        + numbers
        + implicit[implicit_place + 8 + length :],
        "pixels-are-a-sequence": good[:-72] + pixels,
        "codec-by-name": good[:place]
        + struct.pack("<HH2sH", 0x0008, 0x0005, b"CS", 8)
        + b"punycode"
        + struct.pack("<HH2sHI", 0x0028, 0x0004, b"UT", 0, 40)
        + b"a-" * 20
        + good[place:],
        "slope-past-float32": seeds.slice_bytes(1, RescaleSlope="1e300"),
        "slope-zero": seeds.slice_bytes(1, RescaleSlope="0"),
        "nested-2000-deep": good[:place] + open_item * 2000 + good[place:],
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


def _weights(kind: str, /, **changes: Mapping) -> bytes:
    """The seed of ``kind`` with one tensor of its own, metadata changed, and a hash that is right."""
    import torch
    from safetensors.torch import save

    from threedme_ros.model.weights_file import content_hash

    (good,) = seeds.weights(kind)()
    (size,) = struct.unpack_from("<Q", good)
    metadata, tensors = json.loads(good[8 : 8 + size])["__metadata__"], {"a": torch.zeros(1)}
    for key, change in changes.items():
        metadata[key] = change if isinstance(change, str) else json.dumps(json.loads(metadata[key]) | change)
    metadata["hash"] = content_hash(metadata, tensors)
    return seeds.in_order(save(tensors, metadata))


def _checkpoint() -> dict[str, bytes]:
    vast = b'{"t":{"dtype":"U8","shape":[18446744073709551615,0],"data_offsets":[0,0]}}'
    return {
        "network-of-gigabytes": _weights("checkpoint", config={"vit_depth": 48, "vit_dim": 1536}),
        "spacing-of-400-digits": _weights("checkpoint", preprocessing={"spacing_mm": [10**400, 3, 3]}),
        "window-infinite": _weights("checkpoint", preprocessing={"ct_window_hu": [0, float("inf")]}),
        "size-past-64-bit": struct.pack("<Q", len(vast)) + vast,
    }


def _foundation() -> dict[str, bytes]:
    return {
        "spacing-of-400-digits": _weights("foundation", preprocessing={"spacing_mm": [10**400, 3, 3]}),
        "no-first-convolution": _weights("foundation"),
    }


def _classifier() -> dict[str, bytes]:
    return {
        "without-a-vit-branch": _weights("classifier", config={"vit": False}),
        "network-of-gigabytes": _weights("classifier", config={"vit_depth": 48, "vit_dim": 1536}),
    }


def _adapter() -> dict[str, bytes]:
    return {
        "alpha-of-400-digits": _weights("adapter", adaptation={"alpha": 10**400}),
        "alpha-infinite": _weights("adapter", adaptation={"alpha": float("inf")}),
        "of-no-kind": _weights("adapter", kind="x"),
        "without-a-vit-branch": _weights("adapter", kind="classification", config={"vit": False}),
        "network-of-gigabytes": _weights("adapter", config={"vit_depth": 48, "vit_dim": 1536}),
    }


def _peer() -> dict[str, bytes]:
    return {
        "of-no-name": _weights("peer", config={"size": ["dynunet"]}),
        "spacing-of-400-digits": _weights("peer", preprocessing={"spacing_mm": [10**400, 3, 3]}),
    }


def _fitted() -> dict[str, bytes]:
    (good,) = (json.loads(data) for data in seeds.fitted())
    scope, lines = good["scope"], good["lines"]

    def judged_by(**changes) -> bytes:
        return json.dumps(good | {"scope": scope | changes}).encode()

    def mapped_by(line: list) -> bytes:
        return json.dumps(good | {"lines": lines | {"ct": {"background": line, "structures": line}}}).encode()

    table = scope["arrangement"]
    return {
        "threshold-nan": judged_by(threshold=float("nan")),
        "bias-of-400-digits": judged_by(bias=10**400),
        "features-a-list": judged_by(features=list(scope["features"])),
        "features-of-two": judged_by(features={name: [1, 2] for name in scope["features"]}),
        "deviations-zero": judged_by(features={name: [1, 0, 2] for name in scope["features"]}),
        "deviations-denormal": judged_by(features={name: [1, 1e-320, 2] for name in scope["features"]}),
        "pairs-past-64-bit": judged_by(arrangement=table | {"pairs": [[10**30, 1]]}),
        "no-spread": judged_by(arrangement=table | {"spread_mm": []}),
        "no-arrangement": judged_by(arrangement=None),
        "slope-of-400-digits": mapped_by([10**400, 0]),
        "slope-nan": mapped_by([float("nan"), 0]),
        "line-of-text": mapped_by(["a", "b"]),
        "nothing": b"{}",
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
        "hexadecimal-of-5000-digits": b"structures: [{id: 0x" + b"f" * 5000 + b" }]",
        "binary-of-5000-digits": b"structures: [{id: 0b" + b"1" * 5000 + b" }]",
        "base-60-of-2000-digits": b"structures: [{id: 1" + b":00" * 1000 + b" }]",
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
    def archive(header: bytes, body: bytes = b"", packing: int = zipfile.ZIP_DEFLATED) -> bytes:
        out, pad = io.BytesIO(), b" " * (-(len(header) + 11) % 64) + b"\n"
        with zipfile.ZipFile(out, "w", packing) as file:
            text = header + pad
            info = zipfile.ZipInfo("train_images.npy")
            info.compress_type = packing
            file.writestr(info, b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body)
        return out.getvalue()

    pickled = io.BytesIO()
    np.savez(pickled, train_images=np.array([{"a": 1}], dtype=object))
    return {
        "claims-a-petabyte": archive(b"{'descr': '|u1', 'fortran_order': False, 'shape': (1125899906842624,), }"),
        "negative-shape": archive(b"{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 4, 4, 4), }"),
        "bomb": archive(b"{'descr': '|u1', 'fortran_order': False, 'shape': (1, 4, 4, 4), }", bytes(10 << 20)),
        "bomb-of-bzip2": archive(
            b"{'descr': '|u1', 'fortran_order': False, 'shape': (1, 4, 4, 4), }", bytes(64 << 20), zipfile.ZIP_BZIP2
        ),
        "call-in-the-header": archive(b"{'descr': __import__('os').system('id'), 'shape': ()}"),
        "pickled-objects": pickled.getvalue(),
        "a-pickle": b"\x80\x04cos\nsystem\n(S'id'\ntR.",
        "no-zip": b"PK\x03\x04" + b"\0" * 100,
    }


def _dataset() -> dict[str, bytes]:
    return {"deep": b"[" * 3000, "list": b"[1, 2]", "not-utf-8": b'{"labels": "\xff"}', "null": b"null"}


def _split() -> dict[str, bytes]:
    def of(train: object, val: object) -> bytes:
        return json.dumps([{"train": train, "val": val}]).encode()

    return _dataset() | {
        "lists-in-a-list": of([[]], ["c"]),
        "mappings-in-a-list": of([{}], ["c"]),
        "a-case-twice": of(["a", "a"], ["c"]),
        "a-case-in-both": of(["a", "b"], ["b"]),
        "texts": of("a", "b"),
        "by-number": b'{"0": {"train": ["a"], "val": ["b"]}}',
    }


def _run_log() -> dict[str, bytes]:
    (good,) = seeds.run_log()
    lines = {"no-json": b"x", "not-utf-8": b"\xff", "a-number": b"1", "no-step": b"{}", "deep": b"[" * 3000}
    lines["loss-of-400-digits"] = b'{"step": 3, "loss": 1' + b"0" * 400 + b"}"
    return {name: good + line + b"\n" for name, line in lines.items()}


def _bag() -> dict[str, bytes]:
    from . import bags  # rosbags and what it needs, for this one alone

    (good,) = bags.seeds()
    count = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    return {
        "computes-for-ever": bags.changed(good, "ALTER TABLE topics RENAME TO t", f"CREATE VIEW topics AS {count}"),
        "computes-a-gigabyte": bags.changed(
            good, "ALTER TABLE messages ADD COLUMN x BLOB GENERATED ALWAYS AS (zeroblob(900000000)) VIRTUAL"
        ),
    }


def _run_state() -> dict[str, bytes]:
    (good,) = seeds.run_state()
    return {
        "a-pickle": b"\x80\x04cos\nsystem\n(S'id'\ntR.",
        "a-pickle-of-a-set": b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01c__builtin__\nset\nq\x02]q\x03\x85q\x04Rq\x05u.",
        "cut": good[: len(good) // 2],
        "nothing": b"",
    }


def _prepared_volume() -> dict[str, bytes]:
    good = seeds.prepared_volume()[0]
    changes = {
        "unclosed": (b"{'descr'", b"('descr'"),
        "no-text": (b"'<f2'", b"'<f2,"),
        "complex-shape": (b"(5, ", b"(4j,"),
        "objects": (b"'<f2'", b"'|O' "),
        "integers": (b"'<f2'", b"'<i2'"),
        "huge": (b"(5, 4, 3)", b"(9**9, 4)"),
        "a-zip": (b"\x93NUMPY", b"PK\x03\x04UM"),
    }
    assert all(old in good for old, _ in changes.values())
    return {name: good.replace(old, new, 1) for name, (old, new) in changes.items()} | {"cut": good[:-1]}


def _prepared_case() -> dict[str, bytes]:
    import torch
    from safetensors.torch import load, save

    tensors = load(seeds.prepared_case()[0])
    changes = {
        "no-places": {"places": torch.zeros(3, dtype=torch.int16)},
        "places-beyond": {"places": torch.tensor([[1, 9, 0, 0]], dtype=torch.int16)},
        "places-before": {"places": torch.tensor([[1, -1, 0, 0]], dtype=torch.int16)},
        "places-nan": {"places": torch.full((1, 4), float("nan"))},
        "labels-of-one-axis": {"labels": torch.zeros(3, dtype=torch.uint8)},
        "another-image": {"image": torch.zeros(1, 2, 2, 2, dtype=torch.float16)},
    }
    return {name: seeds.in_order(save(tensors | change)) for name, change in changes.items()}


def _cohort_record() -> dict[str, bytes]:
    done, failed = (json.loads(data) for data in seeds.cohort_records())

    def row(**changes) -> bytes:
        return json.dumps(done | changes).encode()

    return _dataset() | {
        "no-seconds": row(seconds=None),
        "seconds-of-400-digits": row(seconds=10**400),
        "warnings-of-numbers": row(warnings=[3]),
        "volumes-of-text": row(volumes_ml={"liver": "1"}),
        "state-a-list": row(state=["done"]),
        "failed-without-a-reason": json.dumps(failed | {"reason": None}).encode(),
    }


_ATTACKS: dict[str, Callable[[], dict[str, bytes]]] = {
    "nifti": _nifti, "nifti_gzip": _nifti_gzip, "nrrd": _nrrd, "meta_image": _meta_image,
    "dicom_store": _dicom, "igtl": _igtl, "anatomy_yaml": _yaml, "task_yaml": _yaml, "anatomy_json": _json,
    "label_info": _label_info, "medmnist_npz": _npz,
    "dataset": _dataset, "record": _dataset,
    "prompt": _safetensors, "checkpoint": _checkpoint, "foundation": _foundation, "classifier": _classifier,
    "adapter": _adapter, "peer": _peer, "fitted": _fitted, "split": _split, "run_log": _run_log,
    "bag": _bag, "run_state": _run_state, "prepared_volume": _prepared_volume, "prepared_case": _prepared_case,
    "cohort_record": _cohort_record,
}  # fmt: skip
