"""One input, one decoder, one verdict."""

from __future__ import annotations

import re
import traceback
from dataclasses import dataclass
from pathlib import Path

from .decoder import Decoder
from .guard import MIB, Forbidden, Hang, peak_bytes, watched
from .seeds import SECRET

SECONDS = 5.0
"""CPU time an input of at most 64 KiB may cost, whatever it says."""
GROWTH_BYTES = 96 * MIB
"""By how much one input may raise the most memory the process ever had; the largest result has half a megabyte."""
LONGEST_REFUSAL = 1500
_VARIABLE = re.compile(r"'[^']*'|\"[^\"]*\"|\[[^\]]*\]|\([^)]*\)|b'.*|-?\d[\d.eE+-]*|/\S+")
ACCEPTED, REFUSED, DEFECT = "accepted", "refused", "defect"


@dataclass(frozen=True)
class Verdict:
    """``kind``: accepted, refused or defect. ``reason``: alike for alike causes, to count by."""

    kind: str
    reason: str = ""
    detail: str = ""


def attempt(decoder: Decoder, data: bytes, seconds: float = SECONDS) -> Verdict:
    """Decode ``data`` under guard. A defect is anything but a valid result or an error class of the decoder's own."""
    argument, before, raised = decoder.prepare(data), peak_bytes(), None
    with watched(seconds, decoder.allowed) as watch:
        try:
            decoder.check(decoder.decode(argument))
        except (Exception, Forbidden, Hang) as error:
            raised = error
    if watch.acts:
        return _defect(f"forbidden {watch.acts[0]}", raised)
    grown = peak_bytes() - before
    if grown > GROWTH_BYTES:
        return _defect(f"memory, {grown // MIB} MiB", raised)
    if raised is None:
        return Verdict(ACCEPTED)
    if isinstance(raised, decoder.refusals):
        return _refusal(decoder, raised)
    return _defect(type(raised).__name__, raised)


def _refusal(decoder: Decoder, error: Exception) -> Verdict:
    text = str(error)
    problems = {
        "a refusal of several lines": "\n" in text or "\r" in text,
        "a refusal that is too long for a log": len(text) > LONGEST_REFUSAL,
        "a refusal without a reason": not text.strip(),
        "a refusal that quotes the patient": SECRET in text,
        "memory ran out": "MemoryError" in text,
    }
    for problem, there in problems.items():
        if there:
            return _defect(problem, error)
    return Verdict(REFUSED, _alike(error))


def _alike(error: BaseException) -> str:
    """The text without what varies: quoted parts, numbers, paths."""
    text = _VARIABLE.sub("#", str(error)[:400])
    return f"{type(error).__name__}: {' '.join(text.split())[:70]}"


def _defect(what: str, error: BaseException | None) -> Verdict:
    """Alike where the same thing went wrong at the same place."""
    frames = traceback.extract_tb(error.__traceback__) if error else []
    ours = [frame for frame in frames if "threedme_ros" in frame.filename or frame.name.startswith("check_")]
    where = "".join(f" in {Path(frame.filename).name}:{frame.name}" for frame in (ours or frames)[-1:])
    detail = "".join(traceback.format_exception(error))[-4000:] if error else ""
    return Verdict(DEFECT, what + where, detail)
