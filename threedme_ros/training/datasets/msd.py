"""A task of the Medical Segmentation Decathlon: dataset.json, imagesTr, labelsTr."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from threedme_ros.training.datasets.cases import (
    DatasetError,
    SegmentationCase,
    existing_file,
    existing_folder,
    read_json,
)

DESCRIPTION = "dataset.json"


def find_cases(root: Path, channels: Sequence[str]) -> list[SegmentationCase]:
    """What dataset.json lists under `training`, each file checked to exist. DatasetError."""
    existing_folder(root)
    file = root / DESCRIPTION
    document = read_json(file)
    modalities = document.get("modality")
    if not isinstance(modalities, Mapping) or len(modalities) != len(channels):
        raise DatasetError(f"{file}: modality {modalities!r}: expected {len(channels)}, {', '.join(channels)}")
    rows = document.get("training")
    if not isinstance(rows, list) or not rows:
        raise DatasetError(f"{file}: training: expected a list of images and labels")
    return [_case(file, root, number, row) for number, row in enumerate(rows)]


def check_labels(root: Path, structures: Mapping[int, str]) -> None:
    """DatasetError unless dataset.json's label values are those of the task (names may be spelt otherwise)."""
    file = root / DESCRIPTION
    labels = read_json(file).get("labels")
    if not isinstance(labels, Mapping):
        raise DatasetError(f"{file}: labels {labels!r}: expected a mapping of values to names")
    found = {str(key) for key in labels} - {"0"}
    if found != {str(i) for i in structures}:
        raise DatasetError(f"{file}: labels {dict(labels)}: expected {dict(structures)}; is this the right task?")


def _case(file: Path, root: Path, number: int, row: object) -> SegmentationCase:
    if not isinstance(row, Mapping) or not all(isinstance(row.get(key), str) for key in ("image", "label")):
        raise DatasetError(f"{file}: training[{number}] {row!r}: expected `image` and `label`")
    for path in (Path(row["image"]), Path(row["label"])):
        if path.is_absolute() or ".." in path.parts:
            raise DatasetError(f"{file}: training[{number}] {str(path)!r}: expected a file within the data set")
    image = existing_file(root / row["image"], f"an image, by {file.name} training[{number}]")
    labels = existing_file(root / row["label"], f"its labels, by {file.name} training[{number}]")
    return SegmentationCase(image.name.split(".")[0], (image,), labels)
