"""BraTS 2021: a folder a patient, with one file a modality and one of labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from threedme_ros.training.datasets.cases import DatasetError, SegmentationCase, existing_file

SUFFIX = ".nii.gz"
LABELS = "seg"


def find_cases(root: Path, channels: Sequence[str]) -> list[SegmentationCase]:
    """BraTS2021_00000/BraTS2021_00000_flair.nii.gz, _t1, _t1ce, _t2 (``channels``) and _seg. DatasetError.

    Patients may lie one folder deeper (the archive's own folder); a missing file is named.
    """
    folders = [f for f in sorted(root.glob("*/")) + sorted(root.glob("*/*/")) if _is_patient(f)]
    if not folders:
        raise DatasetError(
            f"{root}: no patient in it; expected folders such as BraTS2021_00000 with BraTS2021_00000_flair{SUFFIX}"
        )
    return [_case(folder, channels) for folder in folders]


def _is_patient(folder: Path) -> bool:
    return any(folder.glob(f"{folder.name}_*{SUFFIX}"))


def _case(folder: Path, channels: Sequence[str]) -> SegmentationCase:
    def file(part: str) -> Path:
        return existing_file(folder / f"{folder.name}_{part}{SUFFIX}", f"the {part} of case {folder.name}")

    return SegmentationCase(folder.name, tuple(file(c) for c in channels), file(LABELS))
