"""A training run opens the volumes of its own patient and of nobody else: every file it opens, in every process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from threedme_ros.samples import sample_case
from threedme_ros.share import share_path

SCRIPT = """
import os, sys
log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
samples = sys.argv[2]

def watch(event, arguments):
    if event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], (str, bytes, os.PathLike)):
        path = os.path.realpath(os.fsdecode(arguments[0]))
        if path.startswith(samples + os.sep):
            os.write(log, (path + "\\n").encode())

sys.addaudithook(watch)  # forked data processes inherit it, and the open log

from pathlib import Path
from threedme_ros.model.config import SIZES, ModelConfig, Preprocessing
from threedme_ros.training.generalisation import training
from threedme_ros.training.generalisation.runs import chosen

training.Preprocessing = lambda: Preprocessing(spacing_mm=(9.0, 9.0, 9.0))  # small phantoms, drawn fast
SIZES["small"] = ModelConfig("small", 2, channels=(8, 8, 16), vit_dim=24, vit_depth=1, vit_heads=2, plane_heads=2)
recipe, first, output, name = map(str, sys.argv[3:])
training.train_once(
    chosen([name])[0], Path(recipe), Path(output), first_recipe=Path(first), max_steps=3, samples=Path(samples)
)
"""


def small_recipe(name: str, folder: Path) -> Path:
    """The recipe that ships, with tiny windows and few phantoms, and one process that draws."""
    recipe = yaml.safe_load(share_path(f"config/tasks/{name}.yaml").read_text())
    recipe["windows"] |= {"shapes": [[16, 32, 32]], "weights": [1.0]}
    recipe["phantoms"]["count"] = 1
    recipe["workers"] = 1
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


@pytest.mark.parametrize("patient", ["A", "B"])
def test_a_run_opens_its_own_patient_only(patient, samples, tmp_path):
    samples = Path(os.path.realpath(samples))
    log = tmp_path / "opened.txt"
    recipes = [small_recipe(name, tmp_path) for name in ("demo_abdomen", "phantoms")]
    subprocess.run(
        [sys.executable, "-c", SCRIPT, log, samples, *recipes, tmp_path / "runs", f"small-20-{patient}"],
        check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    assert (tmp_path / "runs" / f"small-20-{patient}" / "checkpoint.safetensors").is_file()
    opened = {Path(line) for line in log.read_text().splitlines()}
    own = _files(patient, samples)
    assert any(_within(path, own) for path in opened), "the hook saw nothing: it does not watch what it should"
    assert {path for path in opened if not _within(path, own)} == set()
    others = [place for key in "ABCD" if key != patient for place in _files(key, samples)]
    assert not any(_within(path, others) for path in opened)


def _files(key: str, samples: Path) -> list[Path]:
    """The files and folders that hold a case."""
    case = sample_case(key, samples)
    return [case.image_path, *(samples / file.path for file in case.label_files)]


def _within(path: Path, places: list[Path]) -> bool:
    return any(path == place or place in path.parents for place in places)
