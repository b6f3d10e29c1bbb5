"""What a reader of a segmentation data set finds, and how its cases are split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from threedme_ros import documents
from threedme_ros.documents import DocumentError
from threedme_ros.training.errors import TrainingError

NNUNET_SEED = 12345


class DatasetError(TrainingError):
    """A data set is not laid out as its task expects; the message names the file or key and what was expected."""


@dataclass(frozen=True)
class SegmentationCase:
    """One labelled scan. images: one file a channel, in the task's channel order. labels: on the images' grid."""

    name: str
    images: tuple[Path, ...]
    labels: Path


@dataclass(frozen=True)
class Split:
    """``rule``: how it was made, in words, for the report."""

    training: tuple[SegmentationCase, ...]
    test: tuple[SegmentationCase, ...]
    rule: str


def existing_folder(root: str | Path, *parts: str) -> Path:
    """``root``/``parts``; DatasetError if it is no folder, which shows what is there instead."""
    folder = Path(root, *parts)
    if not folder.is_dir():
        parent = next(p for p in folder.parents if p.is_dir()) if not Path(root).is_dir() else Path(root)
        there = sorted(p.name for p in parent.iterdir())[:8]
        raise DatasetError(f"{folder}: no such folder; {parent} holds {', '.join(there) or 'nothing'}")
    return folder


def existing_file(path: Path, what: str) -> Path:
    try:
        there = path.is_file()
    except OSError as error:  # a name no file system takes
        raise DatasetError(f"{path.name}: {error.strerror}; expected {what}") from error
    if not there:
        raise DatasetError(f"{path}: no such file; expected {what}")
    return path


def read_json(path: Path) -> dict:
    """The mapping in a dataset.json. DatasetError."""
    existing_file(path, "the data set's description")
    try:
        document = documents.read_json(path)
    except DocumentError as error:
        raise DatasetError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(document, dict):
        raise DatasetError(f"{path}: expected a mapping, found {type(document).__name__}")
    return document


def five_folds(names: Sequence[str], fold: int) -> tuple[list[str], list[str]]:
    """(training, held out) names of ``fold`` by nnU-Net's rule: KFold(5, shuffle, random_state 12345) of sorted names.

    Fewer than five cases make as many folds as there are cases. DatasetError for a fold that does not exist.
    """
    names = sorted(names)
    folds = min(5, len(names))
    if folds < 2:
        raise DatasetError(f"{len(names)} labelled cases: expected at least two, one of them to evaluate on")
    if not 0 <= fold < folds:
        raise DatasetError(f"fold {fold}: expected 0 to {folds - 1} for {len(names)} cases")
    order = np.arange(len(names))
    np.random.RandomState(NNUNET_SEED).shuffle(order)
    held = {names[i] for i in np.array_split(order, folds)[fold]}
    return [n for n in names if n not in held], [n for n in names if n in held]


def split_cases(root: Path, cases: Sequence[SegmentationCase], fold: int) -> Split:
    """By ``root``/splits_final.json, nnU-Net's file, where there is one; else by `five_folds`."""
    by_name = {case.name: case for case in cases}
    if len(by_name) != len(cases):
        twice = next(c.name for c in cases if sum(c.name == other.name for other in cases) > 1)
        raise DatasetError(f"{root}: two cases are called {twice}")
    file = root / "splits_final.json"
    if file.is_file():
        training, held = _split_from(file, fold, by_name)
        rule = f"fold {fold} of {file.name}"
    else:
        training, held = five_folds(list(by_name), fold)
        rule = f"fold {fold} of {min(5, len(cases))} held out, by nnU-Net's rule (seed {NNUNET_SEED})"
    return Split(tuple(by_name[n] for n in training), tuple(by_name[n] for n in held), rule)


def _split_from(file: Path, fold: int, known: dict[str, SegmentationCase]) -> tuple[list[str], list[str]]:
    try:
        folds = documents.read_json(file)
    except DocumentError as error:
        raise DatasetError(f"{file}: not readable as JSON ({error})") from error
    row = folds[fold] if isinstance(folds, list) and 0 <= fold < len(folds) else None
    if not isinstance(row, dict):
        raise DatasetError(f"{file}: no fold {fold} with `train` and `val`")
    for key in ("train", "val"):
        names = row.get(key)
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise DatasetError(f"{file}: fold {fold}: {key} {names!r}: expected a list of cases")
    names = row["train"] + row["val"]
    if unknown := [name for name in names if name not in known]:
        raise DatasetError(f"{file}: fold {fold}: {unknown[0]!r} is no case here")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DatasetError(f"{file}: fold {fold}: {twice!r} twice; expected two lists without a common case")
    return row["train"], row["val"]
