"""The corruptions by name, with their units and strengths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from . import geometry, intensity
from .labelled import Labelled

Strength = float | str


@dataclass(frozen=True)
class Corruption:
    """``apply(case, strength, seed)`` gives the corrupted case.

    strengths: in ``unit``, ascending. plane: "axial", "coronal" or "sagittal", the one that shows it best.
    """

    name: str
    unit: str
    strengths: tuple[Strength, ...]
    apply: Callable[[Labelled, Strength, int], Labelled]
    plane: str = "axial"

    def spoken(self, strength: Strength) -> str:
        return f"{strength} {self.unit}" if isinstance(strength, str) else f"{strength:g} {self.unit}"


CORRUPTIONS = (
    Corruption("noise", "HU", (20, 40, 80, 160), intensity.noise),
    Corruption("blur", "mm FWHM", (3, 6, 9, 12), intensity.blur),
    Corruption("slice thickness", "mm", (5, 8, 12), geometry.slice_thickness, "coronal"),
    Corruption("spacing", "times", (1.5, 2, 3), geometry.spacing),
    Corruption("streaks", "HU", (25, 50, 100, 200), intensity.streaks),
    Corruption("intensity shift", "HU", (-100, -50, 50, 100), intensity.shift),
    Corruption("intensity gain", "%", (-30, -15, 15, 30), intensity.gain),
    Corruption("truncation", "% of the body", (10, 25, 40, 60), geometry.truncation),
    Corruption("slab", "mm", (120, 80, 40), geometry.slab, "coronal"),
    Corruption("roll", "degrees", (10, 20, 30), geometry.roll),
    Corruption("tilt", "degrees", (10, 20, 30), geometry.tilt, "sagittal"),
    Corruption("storage order", "axes", ("LPS", "LAI", "SPR"), geometry.storage_order, "coronal"),
)


def chosen(names: Sequence[str] | None = None) -> tuple[Corruption, ...]:
    """Those called ``names``, in the suite's order; None for all. ValueError for a name it does not hold."""
    known = [c.name for c in CORRUPTIONS]
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise ValueError(f"corruption {unknown[0]!r}: expected one of {known}")
    return tuple(c for c in CORRUPTIONS if names is None or c.name in names)
