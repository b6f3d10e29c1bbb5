"""What tissues are made of, and how each looks: in CT before and after contrast, and in the common MR sequences.

Orders of magnitude from radiology textbooks, not measurements: a draw (see `contrast`) spreads widely around them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum


class Substance(IntEnum):
    UNKNOWN = 0
    GAS = 1
    LUNG = 2
    FAT = 3
    MUSCLE = 4
    CORTICAL_BONE = 5
    MARROW = 6
    CARTILAGE = 7
    ARTERY = 8
    VEIN = 9
    PORTAL_VEIN = 10
    LIVER = 11
    SPLEEN = 12
    KIDNEY = 13
    PANCREAS = 14
    GUT_WALL = 15
    GUT_CONTENT = 16
    FLUID = 17
    URINE = 18
    GLAND = 19
    NERVE = 20
    HEART = 21


@dataclass(frozen=True)
class Look:
    """hu: CT without contrast, in HU. arterial, portal, delayed: what contrast adds in that phase, in HU.

    t1, t2: brightness from 0 (none) to 1 in plain T1- and T2-weighted spin echo. fat: the share of the signal that fat
    suppression removes. flow: moving blood, whose signal is anything from a void to the brightest.
    """

    hu: float
    arterial: float = 0.0
    portal: float = 0.0
    delayed: float = 0.0
    t1: float = 0.45
    t2: float = 0.45
    fat: float = 0.0
    flow: bool = False


LOOKS: Mapping[Substance, Look] = {
    Substance.UNKNOWN: Look(40, 15, 25, 20),
    Substance.GAS: Look(-1000, t1=0.0, t2=0.0),
    Substance.LUNG: Look(-800, 20, 30, 20, t1=0.08, t2=0.10),
    Substance.FAT: Look(-100, t1=0.90, t2=0.75, fat=0.9),
    Substance.MUSCLE: Look(55, 5, 12, 10, t1=0.42, t2=0.18),
    Substance.CORTICAL_BONE: Look(480, t1=0.06, t2=0.05),
    Substance.MARROW: Look(180, 5, 10, 10, t1=0.65, t2=0.45, fat=0.6),
    Substance.CARTILAGE: Look(110, 0, 5, 5, t1=0.40, t2=0.35),
    Substance.ARTERY: Look(42, 280, 120, 70, t1=0.15, t2=0.08, flow=True),
    Substance.VEIN: Look(42, 40, 110, 70, t1=0.18, t2=0.15, flow=True),
    Substance.PORTAL_VEIN: Look(42, 60, 135, 70, t1=0.18, t2=0.15, flow=True),
    Substance.LIVER: Look(58, 12, 50, 35, t1=0.60, t2=0.32),
    Substance.SPLEEN: Look(48, 80, 75, 45, t1=0.40, t2=0.62),
    Substance.KIDNEY: Look(34, 120, 150, 110, t1=0.42, t2=0.68),
    Substance.PANCREAS: Look(42, 60, 50, 30, t1=0.66, t2=0.42),
    Substance.GUT_WALL: Look(40, 40, 55, 40, t1=0.42, t2=0.40),
    Substance.GUT_CONTENT: Look(20, t1=0.30, t2=0.70),
    Substance.FLUID: Look(8, t1=0.12, t2=1.00),
    Substance.URINE: Look(6, t1=0.12, t2=1.00),
    Substance.GLAND: Look(40, 40, 50, 40, t1=0.45, t2=0.50),
    Substance.NERVE: Look(35, 0, 3, 3, t1=0.50, t2=0.50),
    Substance.HEART: Look(45, 150, 90, 60, t1=0.35, t2=0.25, flow=True),
}
