"""Every decoder of bytes from a topic, a socket or a file: the module that calls it, and its share of a campaign.

Nothing of the package is imported here, so that a process imports what its own decoder needs and no more.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .decoder import Decoder

DECODERS: dict[str, tuple[str, float]] = {
    "nifti": ("volumes", 4), "nifti_gzip": ("volumes", 3), "nrrd": ("volumes", 4), "message": ("volumes", 2),
    "meta_image": ("volumes", 3), "igtl": ("igtl", 4), "dicom_store": ("dicom", 0.8), "dicom_file": ("dicom", 0.4),
    "anatomy_yaml": ("documents", 1), "anatomy_json": ("documents", 3), "label_info": ("documents", 2),
    "trace": ("documents", 2), "checkpoint": ("weights", 0.3), "foundation": ("weights", 0.3),
    "classifier": ("weights", 0.3), "adapter": ("weights", 0.3), "prompt": ("weights", 0.3),
    "peer": ("weights", 0.3), "fitted": ("documents", 1), "task_yaml": ("data_sets", 0.3),
    "demo_task_yaml": ("data_sets", 0.3), "pretrain_yaml": ("data_sets", 0.3), "medmnist_npz": ("data_sets", 1),
    "dataset": ("data_sets", 2), "record": ("data_sets", 2), "split": ("data_sets", 2), "run_log": ("runs", 2),
    "run_state": ("runs", 0.5), "prepared_volume": ("runs", 1), "prepared_case": ("runs", 0.5),
    "cohort_record": ("runs", 2), "bag": ("bags", 0.3),
}  # fmt: skip
"""Faster decoders get more of the inputs."""


def decoder(name: str) -> Decoder:
    module = import_module(f".{DECODERS[name][0]}", __package__)
    return next(d for d in module.decoders() if d.name == name)
