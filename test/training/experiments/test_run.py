"""The experiments on phantoms and a network of a few thousand weights: what they hold apart, share and resume."""

from dataclasses import replace

import pytest
import torch

from threedme_ros import cli
from threedme_ros.model.config import ModelConfig, Preprocessing
from threedme_ros.model.threedme import ThreeDME
from threedme_ros.phantom import phantom
from threedme_ros.training.augment import WarpConfig
from threedme_ros.training.case import training_case
from threedme_ros.training.crops import CropConfig
from threedme_ros.training.errors import TrainingError
from threedme_ros.training.experiments import run as running
from threedme_ros.training.experiments.arms import EXPERIMENTS
from threedme_ros.training.experiments.budget import Budget
from threedme_ros.training.experiments.material import GAP_SLICES, Held, Material, upper_half
from threedme_ros.training.volume_cache import find_volumes, prepare_volumes
from threedme_ros.training.window_config import WindowConfig
from threedme_ros.volume_io import write_volume

PREPROCESSING = Preprocessing(spacing_mm=(10.0, 10.0, 10.0))
SMALLEST = WarpConfig(share=0.0)
BUDGET = Budget(
    pretrain_steps=1,
    train_steps=2,
    model_changes={
        "channels": (8, 12, 16), "vit_dim": 24, "vit_depth": 1, "vit_heads": 2, "plane_heads": 2, "plane_points": 2,
        "knn": 4,
    },
    preprocessing=PREPROCESSING,
    pretrain_windows=CropConfig(shapes=((32, 32, 32),), weights=(1.0,), warp=SMALLEST),
    windows=WindowConfig(shapes=((32, 32, 32),), weights=(1.0,), warp=SMALLEST),
    precision="fp32",
)  # fmt: skip


@pytest.fixture(scope="module")
def case(anatomy):
    image, labels = phantom((40, 36, 48), (10, 10, 10), anatomy=anatomy)
    return training_case("P", image, labels, labels, PREPROCESSING)


@pytest.fixture(scope="module")
def material(case, anatomy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("material")
    write_volume(folder / "scan.nii.gz", phantom((40, 36, 48), (10, 10, 10), seed=4)[0])
    volumes, _ = prepare_volumes(find_volumes(folder), folder / "prepared", PREPROCESSING)
    labelled, (image, labels) = upper_half(case)
    taught = labelled.locations.keys()
    held = (Held.of("A, lower half", image, labels, taught), Held.of("B", case.image, case.labels, taught))
    return Material(labelled, held, tuple(volumes), anatomy)


@pytest.fixture
def counted(monkeypatch):
    """The runs that were really carried out."""
    done = []
    for name in ("train", "pretrain"):
        real = getattr(running, name)

        def counting(*args, _name=name, _real=real, **options):
            done.append(_name)
            return _real(*args, **options)

        monkeypatch.setattr(running, name, counting)
    return done


def test_labelled_and_held_slices_do_not_meet(case):
    labelled, (image, labels) = upper_half(case)
    assert torch.equal(labelled.labels, case.labels[24:])
    assert torch.equal(image, case.image[: 24 - GAP_SLICES]) and torch.equal(labels, case.labels[: 24 - GAP_SLICES])
    assert all(int(where[:, 0].max()) < labelled.labels.shape[0] for where in labelled.locations.values())


def test_only_what_was_taught_and_is_shown_is_scored(case, anatomy):
    liver, spleen = anatomy["liver"].id, anatomy["spleen"].id
    held = Held.of("P", case.image, case.labels, {liver, 200})
    assert held.classes == (liver,)
    with pytest.raises(TrainingError, match="held volume air: none of the classes"):
        Held.of("air", case.image, torch.zeros_like(case.labels), {liver, spleen})


def test_a_network_that_says_background_everywhere_scores_zero(case):
    model = ThreeDME(ModelConfig.of_size("small", 17, **BUDGET.model_changes)).eval()
    torch.nn.init.zeros_(model.decoder.head.weight)
    assert Held.of("P", case.image, case.labels, case.locations.keys()).mean_dice(model) == 0.0


@pytest.mark.parametrize("seeds", [(0, 1), (0, 1, 1), ()])
def test_fewer_than_three_seeds_are_refused(seeds):
    with pytest.raises(TrainingError, match=r"seeds .* expected at least 3, all different"):
        Budget(seeds=seeds)


def test_an_interrupted_experiment_goes_on_and_experiments_share_runs(material, tmp_path, counted, monkeypatch):
    pytest.importorskip("lightning")
    whole = running.run_experiment(EXPERIMENTS["few-labels"], BUDGET, material, tmp_path)
    assert sorted(counted) == ["pretrain"] * 3 + ["train"] * 6
    counted.clear()
    (tmp_path / "train-scratch-seed1.json").unlink()
    assert running.run_experiment(EXPERIMENTS["few-labels"], BUDGET, material, tmp_path) == whole  # bit for bit again
    assert counted == ["train"]
    counted.clear()
    table = running.run_experiment(EXPERIMENTS["ablation"], BUDGET, material, tmp_path)
    assert counted == ["train"] * 9  # the full network's runs are those of few-labels
    assert (tmp_path / "ablation.md").read_text() == table
    assert not list(tmp_path.rglob("state.pt"))
    with pytest.raises(TrainingError, match="another steps; name a new output folder"):
        running.run_experiment(EXPERIMENTS["ablation"], replace(BUDGET, train_steps=3), material, tmp_path)


def test_arms_differ_in_one_thing():
    masking = [arm.masking for arm in EXPERIMENTS["masking"].arms]
    assert masking == ["progressive", "fixed", "uniform"] and not any(a.changes for a in EXPERIMENTS["masking"].arms)
    assert [dict(a.changes) for a in EXPERIMENTS["ablation"].arms] == [
        {}, {"graph": False}, {"vit": False}, {"plane_attention": False},
    ]  # fmt: skip
    assert [a.masking for a in EXPERIMENTS["few-labels"].arms] == [None, "progressive"]
    tasks = [BUDGET.pretraining(kind, 1).as_dict() for kind in masking]
    for task in tasks:
        task.pop("name")
        task["masking"].pop("kind")
    assert tasks[0] == tasks[1] == tasks[2]


def test_the_command_refuses_too_few_seeds_before_it_fetches_anything(tmp_path, capsys):
    assert cli.main(["experiment", "ablation", "--seeds", "1", "--output", str(tmp_path / "out")]) == 2
    assert "seeds (1,): expected at least 3" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
