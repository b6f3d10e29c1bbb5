"""Volumes of every kind for a soak: many grids, types, orders and formats over a few fields of view, and bad ones."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CompressedImage

from threedme_ros.nodes.messages import byte_array, volume_message
from threedme_ros.phantom import phantom_on
from threedme_ros.volume import Grid
from threedme_ros.volume_io import FORMATS

FIELDS = (
    (16, 16, 16),
    (32, 16, 32),
    (32, 32, 32),
    (48, 32, 32),
    (48, 48, 32),
    (48, 48, 48),
    (64, 48, 48),
    (64, 64, 64),
)
"""Of small volumes, in the model's voxels along R, A, S, rounded up to what an engine is built for: more of them than
any engine keeps built."""

AXIS_VOXELS = (32, 128)
SPACING_MM = (1.0, 5.0)
LARGE_SHAPE, LARGE_SPACING_MM = (256, 256, 128), (1.4, 1.1, 2.6)
DTYPES = ("int16", "uint8", "float32")
ORIENTATIONS = ("RAS", "LPS", "LAS", "SAR", "PIR")
STRIDE = 16
SAME_FIELD = 0.9
"""How often a small volume has the field of view of the one before, as in a scanner's series: its engine is there."""


@dataclass(frozen=True, eq=False)
class Sample:
    """message: whose stamp is set when it is sent. kind: "small", "large" or "bad". field: which of `FIELDS`, if small.
    refused: the node must refuse it. untimed: it is sent without a stamp."""

    message: CompressedImage
    kind: str
    name: str
    field: int = -1
    refused: bool = False
    untimed: bool = False


def make_pool(
    spacing_mm: tuple[float, float, float], small: int, large: int, rng: np.random.Generator
) -> dict[str, list[Sample]]:
    """``small`` volumes of 32^3 to 128^3 voxels, ``large`` ones of 256 x 256 x 128, and one bad of each sort, by kind.

    spacing_mm: of the model, R A S.
    """
    return {
        "small": [replace(_small(FIELDS[f], spacing_mm, rng), field=f) for f in np.arange(small) % len(FIELDS)],
        "large": [_large(rng) for _ in range(large)],
        "bad": _bad_ones(rng),
    }


def endless(pool: dict[str, list[Sample]], rng: np.random.Generator) -> Iterator[list[Sample]]:
    """What to send together, for ever: mostly one volume, sometimes a burst that comes faster than it can be taken."""
    fields = [[s for s in pool["small"] if s.field == field] for field in {s.field for s in pool["small"]}]
    field = 0

    def small() -> Sample:
        nonlocal field
        if rng.random() >= SAME_FIELD:
            field = int(rng.integers(len(fields)))
        return _one(fields[field], rng)

    while True:
        draw = rng.random()
        if draw < 0.01 and pool["large"]:
            yield [_one(pool["large"], rng)]
        elif draw < 0.10:
            yield [_one(pool["bad"], rng)]
        elif draw < 0.16:
            yield [_one(pool["bad"], rng) if rng.random() < 0.2 else small() for _ in range(rng.integers(2, 7))]
        else:
            yield [small()]


def _one(samples: Sequence[Sample], rng: np.random.Generator) -> Sample:
    return samples[rng.integers(len(samples))]


def _small(field: tuple[int, int, int], spacing_mm: tuple[float, float, float], rng: np.random.Generator) -> Sample:
    shape, spacing = [], []
    for most, model_mm in zip(field, spacing_mm, strict=True):
        least = max(most - STRIDE + 1, int(np.ceil(AXIS_VOXELS[0] * SPACING_MM[0] / model_mm)))
        extent = rng.integers(min(least, most), most + 1) * model_mm
        finest = max(SPACING_MM[0], extent / AXIS_VOXELS[1])
        coarsest = max(finest, min(SPACING_MM[1], extent / AXIS_VOXELS[0]))
        shape.append(int(np.clip(round(extent / rng.uniform(finest, coarsest)), *AXIS_VOXELS)))
        spacing.append(extent / shape[-1])
    return _sample(shape, spacing, str(rng.choice(DTYPES)), str(rng.choice(FORMATS)), "small", rng)


def _large(rng: np.random.Generator) -> Sample:
    return _sample(LARGE_SHAPE, LARGE_SPACING_MM, "int16", "nifti", "large", rng)


def _sample(shape, spacing, dtype: str, format: str, kind: str, rng: np.random.Generator) -> Sample:
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -(np.array(shape) - 1) / 2 * spacing
    centre_mm = rng.uniform(-60, 60, 3) if kind == "small" else np.zeros(3)
    image = phantom_on(Grid(tuple(shape), affine), centre_mm=tuple(centre_mm), seed=int(rng.integers(2**31)))[0]
    voxels = image.voxels.astype("f4" if dtype == "float32" else "i2")
    if dtype == "uint8":
        voxels = np.clip((voxels + 200.0) * (255 / 500), 0, 255).astype("u1")
    code = str(rng.choice(ORIENTATIONS))
    volume, _ = image.with_voxels(voxels).reoriented(code)
    size = "x".join(str(n) for n in volume.shape)
    return Sample(volume_message(volume, Time(sec=1), format), kind, f"{size} {dtype} {code} {format}")


def _bad_ones(rng: np.random.Generator) -> list[Sample]:
    image = phantom_on(Grid((40, 36, 32), np.diag([4.0, 4.0, 5.0, 1.0])))[0]
    plain = bytes(volume_message(image, Time(sec=1)).data)
    zeros, holes = np.zeros(image.shape, "i2"), image.voxels.astype("f4")
    holes[3, 4, 5] = np.nan
    bomb = plain[:352] + bytes(1 << 26)
    return [
        _bad("truncated", "nifti", plain[: len(plain) // 2]),
        _bad("empty", "nifti", b""),
        _bad("noise", "nifti", rng.bytes(50_000)),
        _bad("noise as gzip", "nifti; gzip", b"\x1f\x8b\x08" + rng.bytes(50_000)),
        _bad("noise as NRRD", "nrrd", b"NRRD0004\n" + rng.bytes(5_000)),
        _bad("gzip expands past its header", "nifti; gzip", gzip.compress(bomb, 1)),
        _bad("plain announced as gzip", "nifti; gzip", plain),
        _bad("claims 32767^3 voxels", "nifti", _patched(plain, 42, np.array([32767] * 3, "<i2").tobytes())),
        _bad("no geometry", "nifti", _patched(plain, 252, bytes(4))),
        _bad("constant", "nifti", bytes(volume_message(image.with_voxels(zeros), Time(sec=1)).data)),
        _bad("not a number", "nifti", bytes(volume_message(image.with_voxels(holes), Time(sec=1)).data)),
        _bad("unknown format", "jpeg", plain),
        _bad("no frame", "nifti", plain, frame_id=""),
        _bad("no stamp", "nifti", plain, untimed=True),
    ]


def _bad(name: str, format: str, data: bytes, frame_id: str = "patient", untimed: bool = False) -> Sample:
    message = CompressedImage(format=format)
    message.header.frame_id = frame_id
    message.data = byte_array(data)
    return Sample(message, "bad", name, refused=True, untimed=untimed)


def _patched(data: bytes, offset: int, new: bytes) -> bytes:
    return data[:offset] + new + data[offset + len(new) :]
