"""Many scans through one checkpoint: resumable, shared out over any number of processes, one report.

A finished case is a label file and, written after it, a record beside it; both appear whole or not at all. So there is
nothing to lock: a process that is started again, or one of another number of processes, takes what has no record. Every
process writes the report when it ends, from all records; the last one to end has them all.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from threedme_ros.documents import DocumentError, read_json
from threedme_ros.inference.engines import EngineError
from threedme_ros.inference.segmenter import Segmenter
from threedme_ros.model.config import is_number
from threedme_ros.private_files import replacing
from threedme_ros.volume import VolumeError
from threedme_ros.volume_io import read_volume, write_volume

LABELS, RECORDS = "labels", "cases"
SUFFIX = ".nii.gz"
DONE, FAILED = "done", "failed"
Progress = Callable[[Iterator, int], Iterator]


class CohortError(ValueError):
    """A case cannot be segmented, or the folder cannot be one cohort; the message names the case or file."""


@dataclass(frozen=True)
class CohortCase:
    """``name``: its path in the cohort's folder. files: one a channel, in the network's order."""

    name: str
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Shard:
    """Process ``rank`` of ``ranks``; ``local_rank`` among those of its machine, to pick a GPU."""

    rank: int = 0
    ranks: int = 1
    local_rank: int = 0

    def of(self, cases: Sequence[CohortCase]) -> list[CohortCase]:
        """Every ranks-th case: scans of one site lie side by side, and take about as long."""
        return list(cases[self.rank :: self.ranks])


def shard_from_environment(environment: Mapping[str, str]) -> Shard:
    """What torchrun (RANK, WORLD_SIZE, LOCAL_RANK) or srun (SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID) say."""
    for names in (("RANK", "WORLD_SIZE", "LOCAL_RANK"), ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")):
        if names[0] in environment and names[1] in environment:
            values = [environment.get(name, "0") for name in names]
            if not all(v.isdecimal() for v in values) or not int(values[0]) < int(values[1]):
                raise CohortError(
                    f"{names[0]}={values[0]!r}, {names[1]}={values[1]!r}: expected a rank below its count"
                )
            return Shard(*map(int, values))
    return Shard()


def group_channels(volumes: Mapping[str, Path], channels: Sequence[str]) -> list[CohortCase]:
    """Cases of a network of ``channels``: files that differ in their ending, _flair or _0000, before the suffix.

    One channel makes every volume a case. CohortError names a missing channel or a file that is none.
    """
    if len(channels) == 1:
        return [CohortCase(name, (path,)) for name, path in volumes.items()]
    found: dict[str, dict[int, Path]] = {}
    for name, path in volumes.items():
        stem, dot, suffix = name.partition(".") if "/" not in name else _split_name(name)
        number = next((i for i, c in enumerate(channels) if stem.endswith(f"_{c}") or stem.endswith(f"_{i:04d}")), None)
        if number is None:
            raise CohortError(f"{path}: no channel; expected a name that ends in one of {_endings(channels)}")
        found.setdefault(stem.rpartition("_")[0] + dot + suffix, {})[number] = path
    for name, files in found.items():
        missing = [c for i, c in enumerate(channels) if i not in files]
        if missing:
            raise CohortError(f"case {name}: no {missing[0]} file; expected all of {_endings(channels)}")
    return [CohortCase(name, tuple(files[i] for i in range(len(channels)))) for name, files in found.items()]


def _split_name(name: str) -> tuple[str, str, str]:
    folder, _, file = name.rpartition("/")
    stem, dot, suffix = file.partition(".")
    return f"{folder}/{stem}", dot, suffix


def _endings(channels: Sequence[str]) -> str:
    return ", ".join(f"_{c} or _{i:04d}" for i, c in enumerate(channels))


def segment_cohort(
    cases: Sequence[CohortCase],
    segmenter: Segmenter,
    output: Path,
    *,
    shard: Shard = Shard(),
    skip_bad_cases: bool = False,
    progress: Progress = lambda items, total: items,
) -> dict:
    """Segment this process's share of ``cases`` that has no record yet; returns the report of the whole cohort.

    Raises CohortError for the first case that cannot be used, unless ``skip_bad_cases``; failed cases are tried again
    in the next run. OSError if the disk is full; what is finished stays.
    """
    key = segmenter.describe()["checkpoint"]
    mine = [case for case in shard.of(cases) if not is_done(case, output, key)]
    try:
        for case in progress(iter(mine), len(mine)):
            record = {"name": case.name, "state": DONE, "identity": _identity(case, key)}
            try:
                result = segmenter.segment([read_volume(path) for path in case.files])
            except (VolumeError, EngineError) as error:
                if not skip_bad_cases:
                    message = f"case {case.name}: {error}; --skip-bad-cases goes on without such cases"
                    raise CohortError(message) from error
                record |= {"state": FAILED, "reason": str(error)}
            else:
                _write_labels(_labels_path(case, output), result.labels)
                counts = np.bincount(result.labels.voxels.ravel(order="K"), minlength=256)
                voxel_ml = result.labels.grid.voxel_volume_ml
                record |= {
                    "volumes_ml": {s.name: float(counts[s.id] * voxel_ml) for s in segmenter.checkpoint.anatomy},
                    "seconds": round(result.timings_s["total"], 3),
                    "warnings": list(result.warnings),
                }
            _write_text(_record_path(case, output), json.dumps(record, indent=1) + "\n")
    finally:
        report = write_report(cases, output, key, [s.name for s in segmenter.checkpoint.anatomy])
    return report


def is_done(case: CohortCase, output: Path, key: str) -> bool:
    """Whether ``output`` holds the labels of exactly these files by the checkpoint with the hash ``key``."""
    record = _record(case, output)
    done = record.get("state") == DONE and record.get("identity") == _identity(case, key)
    return done and _labels_path(case, output).is_file()


def write_report(cases: Sequence[CohortCase], output: Path, key: str, structures: Sequence[str]) -> dict:
    """predict.json (counts, failures) and predict.csv (a row a case, ml a structure), from all records there are."""
    rows, failures = [], []
    for case in cases:
        record = _record(case, output)
        if record.get("state") == FAILED:
            failures.append({"name": case.name, "reason": record["reason"]})
        elif is_done(case, output, key):
            rows.append(record)
    report = {
        "checkpoint": key,
        "cases": len(cases),
        "done": len(rows),
        "failed": failures,
        "left": len(cases) - len(rows) - len(failures),
        "seconds": round(sum(row["seconds"] for row in rows), 1),
        "warned": sum(bool(row["warnings"]) for row in rows),
    }
    _write_text(output / "predict.json", json.dumps(report, indent=1) + "\n")
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["case", "seconds", *(f"{name} ml" for name in structures), "warnings"])
    for row in rows:
        volumes = [f"{row['volumes_ml'].get(name, 0):.3f}" for name in structures]
        writer.writerow([row["name"], row["seconds"], *volumes, "; ".join(row["warnings"])])
    _write_text(output / "predict.csv", table.getvalue())
    return report


def _identity(case: CohortCase, key: str) -> list:
    stats = [stat for path in case.files for stat in _stats(path)]
    return [key, *[[s.st_size, s.st_mtime_ns] for s in stats]]


def _stats(path: Path) -> Iterable[os.stat_result]:
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    return [file.stat() for file in files]


def _labels_path(case: CohortCase, output: Path) -> Path:
    name = case.name if case.name.endswith(SUFFIX) else case.name + SUFFIX
    return output / LABELS / name


def _record_path(case: CohortCase, output: Path) -> Path:
    return output / RECORDS / f"{case.name}.json"


def _record(case: CohortCase, output: Path) -> dict:
    """What was written of ``case``; empty without a record and for a damaged one, so that it is done again."""
    try:
        record = read_json(_record_path(case, output))
    except DocumentError:
        return {}
    return record if isinstance(record, dict) and _is_whole(record) else {}


def _is_whole(record: Mapping) -> bool:
    """Whether the report can be made of it."""
    if record.get("state") == FAILED:
        return isinstance(record.get("reason"), str)
    volumes, warnings = record.get("volumes_ml"), record.get("warnings")
    return (
        record.get("state") == DONE
        and isinstance(record.get("name"), str)
        and isinstance(volumes, Mapping)
        and isinstance(warnings, list)
        and all(is_number(value) for value in (record.get("seconds"), *volumes.values()))
        and all(isinstance(warning, str) for warning in warnings)
    )


def _write_labels(path: Path, labels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        write_volume(path, labels)
    except OSError as error:
        raise OSError(f"{path}: cannot write, is the disk full? ({error.strerror or error})") from error


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replacing(path) as temporary:
            temporary.write_text(text)
    except OSError as error:
        raise OSError(f"{path}: cannot write, is the disk full? ({error.strerror or error})") from error
