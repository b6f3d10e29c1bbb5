"""What a 3DME network is and what its input looks like: frozen, and stored in every checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from numbers import Real

SWITCHES = ("graph", "vit", "plane_attention")
LIMITS = {
    "in_channels": 64, "vit_dim": 1536, "vit_depth": 48, "vit_heads": 64, "graph_layers": 16, "knn": 256,
    "plane_layers": 16, "plane_heads": 64, "plane_points": 64,
}  # fmt: skip
MAX_CHANNELS = 1024
"""Several times what `large` has: a file that describes more than this is damaged or meant to exhaust memory."""


def is_number(value: object) -> bool:
    """A finite one that a float can hold: no bool, no text, no integer of 400 digits."""
    return isinstance(value, Real) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def finite(name: str, values: Iterable) -> tuple[float, ...]:
    """``values`` as floats. ValueError names the one that is no finite number."""
    values = tuple(values)
    if bad := [value for value in values if not is_number(value)]:
        raise ValueError(f"{name} {bad[0]!r}: expected finite numbers")
    return tuple(float(value) for value in values)


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of one 3DME network. ``channels`` are those of the levels at stride 2, 4 and 8.

    ``token_size`` is the edge of a ViT token in voxels (16 or 8); ``knn`` the neighbours in feature space of each
    node at stride 16. ``graph``, ``vit``, ``plane_attention``: what `threedme experiment ablation` leaves out, see
    `Encoder`; files written before there were such fields have all three. Raises ValueError with the field and its
    value.
    """

    size: str
    num_classes: int
    in_channels: int = 1
    channels: tuple[int, int, int] = (32, 64, 128)
    token_size: int = 16
    vit_dim: int = 192
    vit_depth: int = 6
    vit_heads: int = 4
    graph_layers: int = 1
    knn: int = 8
    plane_layers: int = 1
    plane_heads: int = 4
    plane_points: int = 4
    graph: bool = True
    vit: bool = True
    plane_attention: bool = True

    STRIDE = 16  # not a field: the coarsest level; inputs are multiples of it

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name in SWITCHES:
                if type(value) is not bool:
                    raise ValueError(f"{f.name} {value!r}: expected true or false")
            elif f.name not in ("size", "channels") and (type(value) is not int or value < 1):
                raise ValueError(f"{f.name} {value!r}: expected a positive integer")
            if f.name in LIMITS and value > LIMITS[f.name]:
                raise ValueError(f"{f.name} {value!r}: expected at most {LIMITS[f.name]}")
        if not isinstance(self.size, str) or not self.size.isprintable():
            raise ValueError(f"size {self.size!r}: expected a name")
        if not 2 <= self.num_classes <= 256:
            raise ValueError(f"num_classes {self.num_classes}: expected 2 to 256 (labels are uint8)")
        if len(self.channels) != 3 or any(type(c) is not int or not 1 <= c <= MAX_CHANNELS for c in self.channels):
            raise ValueError(f"channels {self.channels}: expected three integers from 1 to {MAX_CHANNELS}")
        if self.token_size not in (8, 16):
            raise ValueError(f"token_size {self.token_size}: expected 8 or 16 voxels")
        if self.vit_dim % (self.vit_heads * 6):
            raise ValueError(f"vit_dim {self.vit_dim}: expected a multiple of 6 x {self.vit_heads} heads (3-D rotary)")
        if self.channels[2] % self.plane_heads:
            raise ValueError(f"channels {self.channels}: expected the last a multiple of {self.plane_heads} heads")

    @classmethod
    def of_size(cls, size: str, num_classes: int, **changes) -> ModelConfig:
        """``small``, ``base`` or ``large``, for ``num_classes`` classes (background counted)."""
        if size not in SIZES:
            raise ValueError(f"model size {size!r}: expected one of {sorted(SIZES)}")
        return replace(SIZES[size], num_classes=num_classes, **changes)


SIZES = {
    "small": ModelConfig("small", 2),
    "base": ModelConfig(
        "base", 2, channels=(32, 64, 160), token_size=8, vit_dim=192, vit_depth=8, graph_layers=2, plane_layers=2
    ),
    "large": ModelConfig(
        "large", 2, channels=(48, 96, 256), token_size=8, vit_dim=384, vit_depth=8, vit_heads=8, graph_layers=2,
        plane_layers=2, plane_heads=8,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Preprocessing:
    """How a volume becomes the network's input; the same for training, evaluation, CLI and robot.

    spacing_mm: the network's voxel along Right, Anterior, Superior, in mm.
    ct_window_hu: CT is clipped to this window in HU, then mapped to [-1, 1].
    percentiles: any other modality is clipped to these percentiles of its non-zero voxels, then mapped to [-1, 1].
    """

    spacing_mm: tuple[float, float, float] = (3.0, 3.0, 3.0)
    ct_window_hu: tuple[float, float] = (-300.0, 500.0)
    percentiles: tuple[float, float] = (0.5, 99.5)

    def __post_init__(self) -> None:
        for f in fields(self):
            object.__setattr__(self, f.name, finite(f.name, getattr(self, f.name)))
        if len(self.spacing_mm) != 3 or not all(0.05 <= s <= 20 for s in self.spacing_mm):
            raise ValueError(f"spacing_mm {self.spacing_mm}: expected three numbers from 0.05 to 20 mm")
        if len(self.ct_window_hu) != 2 or not self.ct_window_hu[0] < self.ct_window_hu[1]:
            raise ValueError(f"ct_window_hu {self.ct_window_hu}: expected (low, high) in HU, low < high")
        if len(self.percentiles) != 2 or not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise ValueError(f"percentiles {self.percentiles}: expected (low, high), 0 <= low < high <= 100")
