"""Many inputs for one decoder in this process, coverage-guided by atheris or, without it, by what the decoder answers.

A process of its own, since libFuzzer never gives control back and a crash in C ends it: what was counted is in a file,
and the input of the moment in another.
"""

from __future__ import annotations

import hashlib
import json
import logging
import mmap
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from .attempt import ACCEPTED, DEFECT, REFUSED, attempt
from .decoder import Decoder, remove_scratch
from .guard import MIB, limit_address_space
from .mutation import MAX_BYTES, mutate_bytes

ADDRESS_SPACE_ROOM = 768 * MIB
SAVE_EVERY_S = 2.0
MAX_POOL = 4000


@dataclass
class Tally:
    """What came of the inputs so far."""

    executions: int = 0
    accepted: int = 0
    refused: Counter = field(default_factory=Counter)
    defects: dict[str, dict] = field(default_factory=dict)
    seconds: float = 0.0
    slowest_s: float = 0.0
    engine: str = ""

    def as_dict(self) -> dict:
        crashes = sum(defect["times"] for defect in self.defects.values())
        return {**vars(self), "refused": dict(self.refused.most_common()), "crashes": crashes}


class Campaign:
    """``folder`` gets NAME.json (the tally), NAME.now (the input of the moment) and NAME.defects/."""

    def __init__(self, decoder: Decoder, executions: int, seed: int, folder: Path) -> None:
        self.decoder, self.executions, self.seed = decoder, executions, seed
        self.tally = Tally()
        self.pool = decoder.seeds()
        self._file = folder / f"{decoder.name}.json"
        self._defects = folder / f"{decoder.name}.defects"
        with (folder / f"{decoder.name}.now").open("w+b") as file:
            file.truncate(MAX_BYTES + 8)
            self._now = mmap.mmap(file.fileno(), 0)
        self._saved_s = self._began_s = time.perf_counter()
        for data in self.pool:  # whatever is imported on first use is imported now, before imports are forbidden
            self._warm(data)
        self.save()

    def one(self, data: bytes) -> bool:
        """Decode ``data``; true if the answer was new."""
        data = data[:MAX_BYTES]
        self._now[:8] = len(data).to_bytes(8, "little")
        self._now[8 : 8 + len(data)] = data
        began = time.perf_counter()
        verdict = attempt(self.decoder, data)
        tally, end = self.tally, time.perf_counter()
        tally.slowest_s = max(tally.slowest_s, end - began)
        tally.executions += 1
        new = False
        if verdict.kind == ACCEPTED:
            tally.accepted += 1
        elif verdict.kind == REFUSED:
            new = verdict.reason not in tally.refused
            tally.refused[verdict.reason] += 1
        elif verdict.kind == DEFECT:
            new = self._defect(verdict, data)
        if tally.executions >= self.executions:
            remove_scratch()
        if end - self._saved_s > SAVE_EVERY_S or tally.executions >= self.executions:
            self.save()
        return new

    def save(self) -> None:
        self._saved_s = time.perf_counter()
        self.tally.seconds = round(self._saved_s - self._began_s, 2)
        temporary = self._file.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.tally.as_dict()))
        temporary.replace(self._file)

    def _warm(self, data: bytes) -> None:
        try:
            self.decoder.check(self.decoder.decode(self.decoder.prepare(data)))
        except Exception as error:
            if not isinstance(error, self.decoder.refusals):
                raise

    def _defect(self, verdict, data: bytes) -> bool:
        known = self.tally.defects.get(verdict.reason)
        if known:
            known["times"] += 1
            return False
        self._defects.mkdir(exist_ok=True)
        name = hashlib.sha256(data).hexdigest()[:12]
        (self._defects / name).write_bytes(data)
        (self._defects / f"{name}.txt").write_text(f"{verdict.reason}\n{verdict.detail}\n")
        self.tally.defects[verdict.reason] = {"times": 1, "input": name}
        return True

    def run_random(self) -> None:
        """Structure-aware random damage; what gave a new answer is damaged again."""
        self.tally.engine = "random"
        rng = random.Random(self.seed)
        pool = list(self.pool)
        while self.tally.executions < self.executions:
            data = rng.choice(self.pool if rng.random() < 0.6 else pool)
            for _ in range(rng.choice((1, 1, 1, 1, 2, 3))):
                data = self.decoder.mutate(data, rng)
            if self.one(data) and len(pool) < MAX_POOL:
                pool.append(data)

    def run_atheris(self) -> None:
        """Never returns: libFuzzer ends the process."""
        import atheris

        self.tally.engine = f"atheris {_version('atheris')}"

        def test_one(data: bytes) -> None:
            if self.tally.executions < self.executions:  # libFuzzer's own count differs by a few
                self.one(data)

        def mutated(data: bytes, most: int, seed: int) -> bytes:
            rng = random.Random(seed)
            choice = rng.random()
            if choice < 0.25:
                return atheris.Mutate(data, most)
            if choice > 0.6:  # libFuzzer's own corpus drifts to what is refused early
                data = rng.choice(self.pool)
            data = self.decoder.mutate(data, rng)
            return (mutate_bytes(data, rng) if choice < 0.3 else data)[:most]

        with tempfile.TemporaryDirectory() as corpus:
            for number, data in enumerate(self.pool):
                Path(corpus, f"{number:04d}").write_bytes(data)
            flags = [
                f"-runs={self.executions + len(self.pool) + 8}",
                f"-seed={self.seed}",
                f"-max_len={MAX_BYTES}",
                "-rss_limit_mb=0",
                "-timeout=3600",
                "-verbosity=0",
            ]
            flags += [
                f"-artifact_prefix={corpus}/",
                "-detect_leaks=0",
                "-handle_segv=0",
                "-reload=0",
                "-print_final_stats=0",
                "-len_control=0",
            ]
            atheris.Setup([sys.argv[0], *flags, corpus], test_one, custom_mutator=mutated)
            atheris.Fuzz()


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


def run_campaign(decoder: Decoder, executions: int, seed: int, folder: Path, engine: str) -> None:
    """``executions`` inputs for ``decoder``; by atheris this does not return."""
    logging.getLogger("pydicom").addHandler(logging.NullHandler())
    campaign = Campaign(decoder, executions, seed, folder)
    limit_address_space(ADDRESS_SPACE_ROOM)
    campaign.run_atheris() if engine == "atheris" else campaign.run_random()
