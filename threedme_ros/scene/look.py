"""A volume's labels -> what the belief judges, and the solids that its objects are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from threedme_ros.anatomy import Anatomy, Role
from threedme_ros.geometry.grown import Solid, solids
from threedme_ros.geometry.plausibility import Extent
from threedme_ros.scene.belief import Look, Seen, Wanted
from threedme_ros.volume import Volume

MIDLINE = "vertebrae"
TARGETS = "targets"
"""The object whose subframes are the target structures."""


@dataclass(frozen=True, eq=False)
class Targets:
    """``places_mm`` by name, the deepest point of each target; ``host_mm`` (3,), inside a no-go solid. RAS+."""

    places_mm: dict[str, tuple[float, float, float]]
    host_mm: tuple[float, float, float]
    wanted: Wanted


def looked_at(
    labels: Volume, confidence: Volume, anatomy: Anatomy, key: object, alarm: str = ""
) -> tuple[Look, dict[str, Solid]]:
    """The no-go and target structures of ``anatomy`` in labels (I, J, K) uint8; confidence: uint8 on the same grid."""
    found = solids(labels, confidence, [s for s in anatomy if s.role is not Role.CONTEXT])
    for solid in found.values():
        _ = solid.innermost_mm  # takes its time, so it is computed here and not where targets are asked for
    seen = {name: Seen(_extent(solid), solid.confidence, shape_of(solid)) for name, solid in found.items()}
    midline_mm = float(found[MIDLINE].centre_mm[0]) if MIDLINE in found else None
    return Look(key, labels.frame_id, seen, midline_mm, alarm), found


def shape_of(solid: Solid) -> int:
    """Equal for solids that are equal but for where they lie."""
    axes = np.round(solid.affine[:3, :3], 6).tobytes()
    return hash((solid.structure, solid.mask.shape, solid.mask.tobytes(), axes, solid.reach_mm.tobytes()))


def targets_in(wanted: dict[str, Wanted], found: dict[str, Solid]) -> Targets | None:
    """The targets among ``wanted``, hung up where they cannot be in anyone's way; None without a no-go solid for it."""
    no_go = [found[name] for name in wanted if found[name].structure.role is Role.NO_GO]
    aims = {name: want for name, want in wanted.items() if found[name].structure.role is Role.TARGET}
    if not (no_go and aims):
        return None
    host_mm = _point(max(no_go, key=lambda solid: solid.volume_ml).innermost_mm)
    places_mm = {name: _point(found[name].innermost_mm) for name in aims}
    first = next(iter(aims.values()))
    offsets = tuple((name, tuple(np.round(np.subtract(p, host_mm), 3))) for name, p in places_mm.items())
    return Targets(places_mm, host_mm, Wanted(first.key, first.frame_id, hash(offsets), host_mm, 0.0))


def _extent(solid: Solid) -> Extent:
    return Extent(solid.volume_ml, _point(solid.centre_mm))


def _point(place_mm: np.ndarray) -> tuple[float, float, float]:
    x, y, z = (round(float(v), 6) for v in place_mm)
    return x, y, z
