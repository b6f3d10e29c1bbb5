"""What an interrupted run left behind: its state and log, prepared volumes and cases, a cohort's records."""

from __future__ import annotations

import encodings.cp437  # noqa: F401 zipfile asks for it when a name is odd
from pathlib import Path

import numpy as np

from threedme_ros.inference import cohort
from threedme_ros.training import task_cache, volume_cache
from threedme_ros.training.errors import TrainingError
from threedme_ros.training.run_folder import RunFolder, read_state_file

from . import seeds, structure
from .decoder import Decoder, from_file
from .documents import JSON_WORDS
from .mutation import text_mutator
from .weights import SAFETENSORS_WORDS


class MadeAgainError(Exception):
    """How a cache refuses: what it holds of a case is not used."""


def _used(found: object) -> object:
    if not found:
        raise MadeAgainError("made again")
    return found


def read_log(path: Path) -> list[dict]:
    return RunFolder(path.parent).read_log()


def check_log(lines: list[dict]) -> None:
    assert all(type(line["step"]) is int and np.isfinite(float(line["loss"])) for line in lines)


def check_state(state: dict) -> None:
    assert isinstance(state, dict)


def read_prepared(path: Path) -> np.ndarray:
    shape = _used(volume_cache._shape_of(path))
    return volume_cache.CachedVolume("x", path, shape).open()


def check_prepared(array: np.ndarray) -> None:
    assert array.ndim == 3 and array.dtype == np.float16
    array.max()  # every voxel lies in the file


def read_prepared_case(path: Path) -> task_cache.PreparedCase:
    return _used(task_cache._opened("x", path))


def check_prepared_case(case: task_cache.PreparedCase) -> None:
    image, labels = case.window([slice(None)] * 3)
    assert image.shape[1:] == labels.shape == case.shape
    for places in case.places.values():
        labels[tuple(places.T)]


def read_cohort_record(path: Path) -> dict:
    case = cohort.CohortCase(path.stem, (path,))
    return _used(cohort._record(case, path.parent.parent))


def check_cohort_record(record: dict) -> None:
    if record["state"] == cohort.DONE:
        assert all(np.isfinite(float(ml)) for ml in record["volumes_ml"].values())
        assert isinstance("; ".join(record["warnings"]), str)
    else:
        assert isinstance(record["reason"], str)


def decoders() -> tuple[Decoder, ...]:
    json = text_mutator((*JSON_WORDS, '"seconds"', '"state"', '"failed"', '"step"', '"loss"'))
    again = {"refusals": (MadeAgainError,)}
    return (
        from_file(
            "run_log",
            ".jsonl",
            read_log,
            called="metrics.jsonl",
            refusals=(TrainingError,),
            check=check_log,
            mutate=json,
            seeds=seeds.run_log,
        ),
        from_file(
            "run_state",
            ".pt",
            read_state_file,
            refusals=(TrainingError,),
            check=check_state,
            mutate=structure.torch_zip,
            seeds=seeds.run_state,
        ),
        from_file(
            "prepared_volume",
            ".npy",
            read_prepared,
            check=check_prepared,
            mutate=structure.npy,
            seeds=seeds.prepared_volume,
            **again,
        ),
        from_file(
            "prepared_case",
            ".safetensors",
            read_prepared_case,
            check=check_prepared_case,
            mutate=structure.safetensors(SAFETENSORS_WORDS),
            seeds=seeds.prepared_case,
            **again,
        ),
        from_file(
            "cohort_record",
            ".json",
            read_cohort_record,
            called="cases/a.nii.gz.json",
            check=check_cohort_record,
            mutate=json,
            seeds=seeds.cohort_records,
            **again,
        ),
    )
