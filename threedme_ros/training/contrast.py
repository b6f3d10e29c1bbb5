"""The brightness of every tissue: CT in any phase of contrast, plausible MR sequences, and free draws.

A draw is a mean for every tissue, (T,) float32, on the scale where a scan lies in [-1, 1] (CT: its window in HU).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .draws import chance, integer, pick, uniform
from .substances import LOOKS, Substance
from .tissues import Tissues

PHASES = ("arterial", "portal", "delayed")
PHASE_WEIGHTS = (0.25, 0.3, 0.2, 0.25)
"""Of the phases, and of no contrast at all."""
SEQUENCES = ("t1", "t1 enhanced", "t2", "balanced")
SEQUENCE_WEIGHTS = (0.3, 0.3, 0.3, 0.1)
ORAL_CONTRAST, EXCRETION = 0.3, 0.25
GUT_GROUPS = 3
"""Oral contrast reaches some parts of the gut only: families of gut are dealt into this many groups."""


def _column(name: str) -> Tensor:
    return torch.tensor([float(getattr(LOOKS[s], name)) for s in Substance])


NATIVE_HU = _column("hu")
PHASE_HU = torch.stack([_column(phase) for phase in PHASES])
T1, T2, FAT, FLOW = (_column(name) for name in ("t1", "t2", "fat", "flow"))


def per_family(tissues: Tissues, generator: torch.Generator) -> Tensor:
    """(T,): one standard normal number a family."""
    return torch.randn(int(tissues.family.max()) + 1, generator=generator)[tissues.family]


def enhancement_hu(tissues: Tissues, generator: torch.Generator) -> Tensor:
    """(T,) HU that contrast adds: one phase, or between two; kidneys, vessels, liver, spleen and gut go together."""
    phase = pick(PHASE_WEIGHTS, generator)
    if phase == len(PHASES):
        return torch.zeros(len(tissues))
    added = PHASE_HU[phase]
    if chance(generator, 0.4):
        added = torch.lerp(added, PHASE_HU[(phase + 1) % len(PHASES)], uniform(generator, 0.0, 0.6))
    share = per_family(tissues, generator).mul_(0.2).exp_()
    return added[tissues.substance] * share * uniform(generator, 0.6, 1.3)


def content_hu(tissues: Tissues, mean_hu: Tensor, generator: torch.Generator) -> Tensor:
    """``mean_hu`` (T,) with gut content and urine filled anew: food and water, oral contrast, excreted contrast."""
    mean_hu = mean_hu.clone()
    gut = tissues.substance == Substance.GUT_CONTENT
    group = tissues.family % GUT_GROUPS
    oral = chance(generator, ORAL_CONTRAST)
    for number in range(GUT_GROUPS):
        filled = oral and chance(generator, 0.7)
        level = uniform(generator, 100, 450) if filled else uniform(generator, -30, 60)
        mean_hu[gut & (group == number)] = level
    if chance(generator, EXCRETION):
        mean_hu[tissues.substance == Substance.URINE] = uniform(generator, 60, 500)
        kidney = tissues.substance == Substance.KIDNEY
        mean_hu[kidney] += uniform(generator, 0, 80)
    return mean_hu


def ct_contrast(tissues: Tissues, generator: torch.Generator, real: bool = True) -> Tensor:
    """A CT: from the scan's own means, enhanced more or less than it is, or from the table of substances.

    real: the scan's own means may hold contrast already; False: they are those of a plain CT.
    """
    low, high = tissues.ct_window_hu
    own = (tissues.mean + 1) * ((high - low) / 2) + low
    if chance(generator, 0.5):
        added = enhancement_hu(tissues, generator)
        mean = own + (added * uniform(generator, -0.4, 0.8) if real else added)
        if chance(generator, 0.5):
            mean = content_hu(tissues, mean, generator)
    else:
        known = tissues.substance != Substance.UNKNOWN
        mean = torch.where(known, NATIVE_HU[tissues.substance], own)
        mean = content_hu(tissues, mean, generator) + enhancement_hu(tissues, generator)
        bone = (tissues.substance == Substance.CORTICAL_BONE) | (tissues.substance == Substance.MARROW)
        mean = torch.where(bone, mean * uniform(generator, 0.5, 1.3), mean)
    # energies and scanners differ a little, patients more
    mean = 40 + (mean - 40) * uniform(generator, 0.85, 1.2)
    mean += per_family(tissues, generator) * uniform(generator, 5.0, 45.0)
    mean += torch.randn(len(tissues), generator=generator) * uniform(generator, 0.0, 15.0)
    unit = (mean - low) * (2 / (high - low)) - 1
    return torch.where(tissues.dark, tissues.mean.clamp(max=-0.8), unit)


def mr_contrast(tissues: Tissues, generator: torch.Generator) -> Tensor:
    """An MR sequence: brightness by T1 or T2 or between them, fat suppressed or not, blood a void or bright."""
    sequence = SEQUENCES[pick(SEQUENCE_WEIGHTS, generator)]
    substance = tissues.substance
    suppressed = chance(generator, 0.6 if sequence == "t1 enhanced" else 0.4)
    if sequence == "balanced":  # the ratio of T2 to T1: fluid, blood and fat bright
        level = 0.25 + 0.6 * T2
        level = torch.where(FLOW > 0, 0.85, level)
    else:
        level = T2 if sequence == "t2" else T1
        if chance(generator, 0.3):  # of short echo times: nearer to the density of protons
            level = torch.lerp(level, 0.75 * (level > 0.1), uniform(generator, 0.0, 0.5))
    level = level[substance]
    if suppressed:
        level = level * (1 - FAT[substance] * uniform(generator, 0.6, 1.0))
    if sequence == "t1 enhanced":
        level = level + enhancement_hu(tissues, generator) * (uniform(generator, 0.2, 0.5) / 100)
    elif sequence != "balanced" and chance(generator, 0.5):  # inflow
        level = torch.where(FLOW[substance] > 0, uniform(generator, 0.5, 1.0), level)
    gut = substance == Substance.GUT_CONTENT
    level = torch.where(gut, torch.rand(int(tissues.family.max()) + 1, generator=generator)[tissues.family], level)
    level = level + per_family(tissues, generator) * uniform(generator, 0.03, 0.15)
    level = level + torch.randn(len(tissues), generator=generator) * uniform(generator, 0.0, 0.06)
    level = level.clamp(min=0.02) ** math.exp(uniform(generator, -0.35, 0.35))
    return torch.where(tissues.dark, uniform(generator, 0.0, 0.06), level) * 2 - 1


def free_contrast(tissues: Tissues, generator: torch.Generator) -> Tensor:
    """Any brightness for any family; families of one kind often alike, and all tissues of one substance sometimes."""
    families = int(tissues.family.max()) + 1
    own, jitter = per_family(tissues, generator), torch.randn(len(tissues), generator=generator)
    mean = (torch.rand(families, generator=generator) * 1.8 - 0.9)[tissues.family]
    if chance(generator, 0.4):
        by_substance = (torch.rand(len(Substance), generator=generator) * 1.8 - 0.9)[tissues.substance]
        mean = torch.where(tissues.substance == Substance.UNKNOWN, mean, by_substance + 0.08 * own)
    by_kind = torch.rand(int(tissues.kind.max()) + 1, generator=generator) * 1.8 - 0.9
    like_kind = (torch.rand(families, generator=generator) < 0.6)[tissues.family] & (tissues.kind > 0)
    mean = torch.where(like_kind, by_kind[tissues.kind] + 0.08 * own, mean)
    mean = mean + jitter * uniform(generator, 0.0, 0.15)
    dark = -1 + torch.rand(len(tissues), generator=generator) * 0.25
    return torch.where(tissues.dark, dark, mean)


def unlabelled_patches(tissues: Tissues, generator: torch.Generator) -> tuple[Tensor, int]:
    """(T,) bool of tissues without a label that may fall into patches of their own brightness, and how many kinds."""
    patchy = (tissues.target == 0) & ~tissues.dark & (tissues.kind != 3)
    return patchy & (torch.rand(len(tissues), generator=generator) < 0.7), integer(generator, 2, 5)
