"""Figures over seeds: their mean and spread, and whether two arms differ by more than their seeds do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean


@dataclass(frozen=True)
class Spread:
    """Of one figure over seeds."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if not values:
            raise ValueError("no values: expected one a seed")
        return cls(fmean(values), min(values), max(values))

    def text(self, digits: int) -> str:
        """``0.512 (0.498 to 0.530)``; the mean alone where all seeds have one value."""
        mean = f"{self.mean:.{digits}f}"
        return mean if self.low == self.high else f"{mean} ({self.low:.{digits}f} to {self.high:.{digits}f})"


@dataclass(frozen=True)
class Difference:
    """An arm less the baseline, seed by seed. ``apart``: the two arms' ranges do not overlap.

    Of two arms that do not differ, three seeds each, one in ten pairs is apart by chance (2 of the 20 ways to deal six
    values out): it is a hint, never a proof.
    """

    spread: Spread
    apart: bool

    @classmethod
    def of(cls, values: Sequence[float], baseline: Sequence[float]) -> Difference:
        if len(values) != len(baseline):
            raise ValueError(f"{len(values)} values against {len(baseline)}: expected the same seeds")
        spread = Spread.of([v - b for v, b in zip(values, baseline, strict=True)])
        return cls(spread, min(values) > max(baseline) or max(values) < min(baseline))

    def text(self, digits: int) -> str:
        """``+0.020 (-0.004 to +0.041)``, in bold if the arms are apart."""
        mean, low, high = (f"{v:+.{digits}f}" for v in (self.spread.mean, self.spread.low, self.spread.high))
        text = f"{mean} ({low} to {high})"
        return f"**{text}**" if self.apart else text


def insert(path: Path, name: str, text: str) -> None:
    """Put ``text`` between the lines ``<!-- name -->`` and ``<!-- /name -->`` of a document, for what was there.

    ValueError if the two lines are not there once each, in order; the document is then untouched.
    """
    first, last = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
    document = path.read_text()
    before, _, rest = document.partition(first)
    _, _, after = rest.partition(last)
    if document.count(first) != 1 or document.count(last) != 1 or last in before:
        raise ValueError(f"{path}: expected the lines <!-- {name} --> and <!-- /{name} --> once each, in that order")
    path.write_text(f"{before}{first}\n{text.strip()}\n\n{last}{after}")


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, the first column left, the others right."""
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"row {list(row)}: expected {len(header)} cells")
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
