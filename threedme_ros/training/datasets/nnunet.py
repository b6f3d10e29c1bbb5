"""Any data set in nnU-Net's raw format (version 2): dataset.json, imagesTr/case_0000.nii.gz, labelsTr/case.nii.gz."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from threedme_ros.training.datasets.cases import (
    DatasetError,
    SegmentationCase,
    existing_file,
    existing_folder,
    read_json,
)

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")
CT_NAMES = ("ct",)


@dataclass(frozen=True)
class Description:
    """channels: names in order. structures: value -> name. regions: name -> values, where labels overlap."""

    channels: tuple[str, ...]
    structures: Mapping[int, str]
    regions: Mapping[str, tuple[int, ...]]
    ending: str

    @property
    def modalities(self) -> tuple[str, ...]:
        """For `prepare`, one a channel: nnU-Net knows CT by its channel name, and so do we."""
        return tuple("ct" if name.lower() in CT_NAMES else "other" for name in self.channels)


def read_description(root: Path) -> Description:
    """dataset.json. DatasetError names the key that is missing or cannot be used."""
    file = existing_folder(root) / "dataset.json"
    document = read_json(file)
    channels, labels = document.get("channel_names"), document.get("labels")
    if not isinstance(channels, Mapping) or sorted(channels, key=str) != sorted(str(i) for i in range(len(channels))):
        raise DatasetError(f"{file}: channel_names {channels!r}: expected a name for each of '0', '1', ...")
    if not isinstance(labels, Mapping) or labels.get("background") != 0:
        raise DatasetError(f"{file}: labels {labels!r}: expected names with values, background 0")
    if "ignore" in labels:
        raise DatasetError(f"{file}: labels: an ignore label ({labels['ignore']!r}) is not supported")
    ending = document.get("file_ending")
    if ending not in ENDINGS:
        raise DatasetError(f"{file}: file_ending {ending!r}: expected one of {ENDINGS}")
    structures, regions = _structures(file, {k: v for k, v in labels.items() if k != "background"})
    return Description(tuple(str(channels[str(i)]) for i in range(len(channels))), structures, regions, ending)


def find_cases(root: Path, channels: Sequence[str], ending: str = ".nii.gz") -> list[SegmentationCase]:
    """A case for each file of labelsTr, with all its channels; a missing one is named. DatasetError."""
    images, labels = existing_folder(root, "imagesTr"), existing_folder(root, "labelsTr")
    cases = []
    for path in sorted(labels.glob(f"*{ending}")):
        name = path.name.removesuffix(ending)
        files = [
            existing_file(images / f"{name}_{i:04d}{ending}", f"channel {i} ({channel}) of case {name}")
            for i, channel in enumerate(channels)
        ]
        cases.append(SegmentationCase(name, tuple(files), path))
    if not cases:
        raise DatasetError(f"{labels}: no *{ending} in it, the file_ending of dataset.json")
    return cases


def _structures(file: Path, labels: Mapping) -> tuple[dict[int, str], dict[str, tuple[int, ...]]]:
    """Label value -> name, and the regions if any label is a list of values (nnU-Net's region-based training)."""
    regions: dict[str, tuple[int, ...]] = {}
    for name, value in labels.items():
        values = value if isinstance(value, list) else [value]
        if not values or not all(type(v) is int and 1 <= v <= 254 for v in values):
            raise DatasetError(f"{file}: label {name!r} {value!r}: expected integers from 1 to 254")
        regions[str(name)] = tuple(values)
    ids = sorted({v for values in regions.values() for v in values})
    if not ids:
        raise DatasetError(f"{file}: labels: expected at least one besides background")
    single = {values[0]: name for name, values in regions.items() if len(values) == 1}
    structures = {i: single.get(i, f"label_{i}") for i in ids}
    overlapping = any(len(values) > 1 for values in regions.values())
    return structures, regions if overlapping else {}
