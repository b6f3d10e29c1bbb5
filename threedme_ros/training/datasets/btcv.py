"""BTCV as Synapse ships it (RawData/Training/img, label) and as most code arranges it (imagesTr, labelsTr)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from threedme_ros.training.datasets.cases import DatasetError, SegmentationCase, existing_file

SUFFIX = ".nii.gz"
LAYOUTS = (
    ("RawData/Training/img", "RawData/Training/label"),
    ("Training/img", "Training/label"),
    ("img", "label"),
    ("imagesTr", "labelsTr"),
)


def find_cases(root: Path, channels: Sequence[str]) -> list[SegmentationCase]:
    """img0001.nii.gz with label0001.nii.gz (or a label file of the image's name). DatasetError."""
    for image_folder, label_folder in LAYOUTS:
        images, labels = root / image_folder, root / label_folder
        if images.is_dir():
            if not labels.is_dir():
                raise DatasetError(f"{labels}: no such folder; expected the labels of {images}")
            cases = [_case(path, labels) for path in sorted(images.glob(f"*{SUFFIX}"))]
            if not cases:
                raise DatasetError(f"{images}: no *{SUFFIX} in it; expected img0001{SUFFIX} and so on")
            return cases
    known = " or ".join(a for a, _ in LAYOUTS)
    raise DatasetError(f"{root}: no BTCV layout; expected a folder {known} in it")


def _case(image: Path, labels: Path) -> SegmentationCase:
    name = image.name.removesuffix(SUFFIX)
    options = (name.replace("img", "label"), name, name.removesuffix("_0000"))
    found = next((labels / f"{n}{SUFFIX}" for n in options if (labels / f"{n}{SUFFIX}").is_file()), None)
    labels = found or existing_file(labels / f"{options[0]}{SUFFIX}", f"the labels of {image}")
    return SegmentationCase(name.removesuffix("_0000"), (image,), labels)
