"""What the experiments learn from and are measured on. Arrays are (D, H, W) = (S, A, R) on the model's grid."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from threedme_ros.anatomy import Anatomy
from threedme_ros.model.config import Preprocessing
from threedme_ros.phantom import phantom
from threedme_ros.share import share_path
from threedme_ros.training.case import TrainingCase, class_locations
from threedme_ros.training.errors import TrainingError
from threedme_ros.training.metrics import dice_scores
from threedme_ros.training.sample_cases import load_training_cases
from threedme_ros.training.validation import whole_volume_labels
from threedme_ros.training.volume_cache import CachedVolume, prepare_volumes, sample_volumes
from threedme_ros.volume_io import write_volume

GAP_SLICES = 4
"""Between the labelled and the held slices of one patient, so that a neighbour of a labelled slice is no test."""
STRUCTURES = ("liver", "spleen", "colon", "vertebrae", "autochthon", "iliopsoas")
"""Large ones: a few hundred steps teach no network the small ones, and an arm that learns nothing shows nothing."""
FEWEST_VOXELS = 200
"""A structure of which a held volume shows fewer is not scored there."""


@dataclass(frozen=True, eq=False)
class Held:
    """A volume to measure on. image (D, H, W) float32 in [-1, 1], labels (D, H, W) uint8, classes: those scored."""

    name: str
    image: Tensor
    labels: Tensor
    classes: tuple[int, ...]

    @classmethod
    def of(cls, name: str, image: Tensor, labels: Tensor, taught: Collection[int]) -> Held:
        """Scored on the classes in ``taught`` that ``labels`` show well enough; TrainingError if there is none."""
        counts = np.bincount(labels.numpy().ravel(), minlength=256)
        classes = tuple(c for c in sorted(taught) if counts[c] >= FEWEST_VOXELS)
        if not classes:
            raise TrainingError(
                f"held volume {name}: none of the classes {sorted(taught)} in it: expected at least one"
            )
        return cls(name, image, labels, classes)

    def mean_dice(self, model: nn.Module) -> float:
        """Over `classes`, of a `ThreeDME` in eval mode; a structure that is missed counts 0."""
        found = whole_volume_labels(model, self.image).numpy()
        return float(dice_scores(found, self.labels.numpy(), model.config.num_classes)[list(self.classes)].mean())


@dataclass(frozen=True, eq=False)
class Material:
    """labelled: the few labels there are. held: what is measured. volumes: for pretraining, without labels."""

    labelled: TrainingCase
    held: tuple[Held, ...]
    volumes: tuple[CachedVolume, ...]
    anatomy: Anatomy


def slab(case: TrainingCase, first: int, last: int, name: str) -> TrainingCase:
    """Axial slices ``first`` to before ``last`` of a case, as if nothing else of it had been labelled."""
    image, tissue, labels = (part[first:last].contiguous() for part in (case.image, case.tissue, case.labels))
    return replace(case, name=name, image=image, tissue=tissue, labels=labels, locations=class_locations(labels))


def upper_half(case: TrainingCase) -> tuple[TrainingCase, tuple[Tensor, Tensor]]:
    """The upper half of a case to learn from; the image and labels of the lower half, less a gap, to measure on."""
    middle = case.image.shape[0] // 2
    end = middle - GAP_SLICES
    return slab(case, middle, case.image.shape[0], f"{case.name}, upper half"), (case.image[:end], case.labels[:end])


def sample_material(folder: Path, preprocessing: Preprocessing) -> Material:
    """Labels (`STRUCTURES`) of the upper half of patient A; held: its lower half, and B. Unlabelled: A, B, a phantom.

    The upper half, because what it shows is what patient B shows. ``folder`` keeps the prepared volumes.
    """
    table = Anatomy.from_yaml(share_path("config/anatomy.yaml"))
    anatomy = Anatomy([replace(table[name], id=number) for number, name in enumerate(STRUCTURES, start=1)])
    a, b = load_training_cases(["A", "B"], anatomy, preprocessing)
    labelled, (image, labels) = upper_half(a)
    taught = labelled.locations.keys()
    held = (Held.of("A, lower half", image, labels, taught), Held.of("B", b.image, b.labels, taught))
    drawn = folder / "phantom.nii.gz"
    if not drawn.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_volume(drawn, phantom((120, 80, 140), (3.0, 3.0, 3.0))[0])
    unlabelled = sample_volumes(("A", "B")) | {"phantom": drawn}
    volumes, _ = prepare_volumes(unlabelled, folder / "prepared", preprocessing)
    return Material(labelled, held, tuple(volumes), anatomy)
