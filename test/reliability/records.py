"""The three records that `docs/reliability.md` is made of, as `make faults`, `make fuzz` and `make soak` write them.

Each reader checks what the issue asks for. A problem is a sentence; no problem means that the record may be shown.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LEAST_EXECUTIONS, LEAST_FAULTS, LEAST_VOLUMES, LEAST_MINUTES = 1_000_000, 200, 2_000, 20.0


@dataclass(frozen=True)
class Record:
    """``data``: None if it is missing or no such record. ``problems``: why it must not be shown as done."""

    path: Path
    data: dict[str, Any] | None
    problems: tuple[str, ...]


def read_faults(path: Path) -> Record:
    """records: a list of scenario, expected, happened, passed, seconds; impossible: scenario -> why."""

    def problems(data: dict) -> list[str]:
        records = data["records"]
        found = [
            f"{r['scenario']!r} did not end as it must: {r['happened']}" for r in records if r["passed"] is not True
        ]
        never = {name for name in data.get("scenarios", ()) if name not in {r["scenario"] for r in records}}
        found += [f"{name!r} was never injected" for name in sorted(never - data.get("impossible", {}).keys())]
        if len(records) < LEAST_FAULTS:
            found.append(f"{len(records)} faults injected: expected at least {LEAST_FAULTS}")
        for record in records:
            float(record["seconds"]), str(record["expected"])
        return found

    return _read(path, problems)


def read_fuzz(path: Path) -> Record:
    """decoders: name -> executions, accepted, refused (reason -> times), crashes, defects, seconds, slowest_s."""

    def problems(data: dict) -> list[str]:
        rows = data["decoders"]
        found = [
            f"{name}: {row['crashes']} crashes, {len(row['defects'])} defects"
            for name, row in rows.items()
            if row["crashes"] or row["defects"]
        ]
        for name, row in rows.items():
            if row["executions"] < 1 or row["accepted"] + sum(row["refused"].values()) < 1:
                found.append(f"{name}: {row['executions']} executions without an answer")
        if (total := executions(data)) < LEAST_EXECUTIONS:
            found.append(f"{total:,} executions: expected at least {LEAST_EXECUTIONS:,}")
        return found

    return _read(path, problems)


def executions(data: dict) -> int:
    """Over all decoders, counted again."""
    return sum(row["executions"] for row in data["decoders"].values())


def read_soak(path: Path) -> Record:
    """What `threedme soak` writes; its own failures, and its figures counted again."""

    def problems(data: dict) -> list[str]:
        found = [str(failure) for failure in data["failures"]]
        if data["passed"] is not True and not found:
            found.append("it did not pass")
        lost = data["volumes_with_warm_up"] - sum(data["outcomes"].values())
        if lost or data["lost_uncounted"]:
            found.append(f"{lost} volumes are in no count, {data['lost_uncounted']} by the record")
        if data["volumes"] < LEAST_VOLUMES:
            found.append(f"{data['volumes']:,} volumes: expected at least {LEAST_VOLUMES:,}")
        if data["minutes"] < LEAST_MINUTES:
            found.append(f"{data['minutes']:g} minutes: expected at least {LEAST_MINUTES:g}")
        return found

    return _read(path, problems)


def _read(path: Path, problems) -> Record:
    try:
        data = json.loads(path.read_text())
        return Record(path, data, tuple(f"{path.name}: {problem}" for problem in problems(data)))
    except FileNotFoundError:
        return Record(path, None, (f"{path.name}: missing",))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return Record(path, None, (f"{path.name}: not such a record ({type(error).__name__}: {error})",))
