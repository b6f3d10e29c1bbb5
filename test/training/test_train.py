"""The loop: it learns, resumes as if never stopped, averages, and stops on bad numbers and bad input."""

import dataclasses
import json
import math
from types import SimpleNamespace

import pytest
import torch

from threedme_ros.anatomy import Anatomy
from threedme_ros.model.checkpoint import load_checkpoint
from threedme_ros.model.config import SIZES, ModelConfig, Preprocessing
from threedme_ros.phantom import phantom
from threedme_ros.share import share_path
from threedme_ros.training import train, trainer
from threedme_ros.training.case import training_case
from threedme_ros.training.data import WindowStream
from threedme_ros.training.errors import TrainingError
from threedme_ros.training.precision import autocast_for
from threedme_ros.training.tasks import Task, load_task
from threedme_ros.training.window_config import WindowConfig

PREPROCESSING = Preprocessing(spacing_mm=(9.0, 9.0, 12.0))


@pytest.fixture(scope="module")
def case(anatomy):
    image, labels = phantom(anatomy=anatomy)
    return training_case("phantom", image, labels, labels, PREPROCESSING)


@pytest.fixture
def task(monkeypatch):
    tiny = ModelConfig("small", 2, channels=(8, 8, 16), vit_dim=24, vit_depth=1, vit_heads=2, plane_heads=2)
    monkeypatch.setitem(SIZES, "small", tiny)
    windows = WindowConfig(shapes=((32, 32, 32),), weights=(1,))
    return Task(
        "tiny", "config/anatomy.yaml", {"phantom": 1.0}, seed=3, workers=0, learning_rate=5e-3, warm_up=0.0,
        windows=windows,
    )  # fmt: skip


def test_learning_rate_by_hand():
    assert trainer.learning_rate(0.0, 1.0, 0.1) == 0
    assert trainer.learning_rate(0.05, 1.0, 0.1) == pytest.approx(0.5)
    assert trainer.learning_rate(0.1, 1.0, 0.1) == 1
    assert trainer.learning_rate(0.55, 1.0, 0.1) == pytest.approx(0.5)
    assert trainer.learning_rate(1.0, 1.0, 0.1) == trainer.learning_rate(1.2, 1.0, 0.1) == pytest.approx(0)


def test_moving_average_by_hand():
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, 1.0)
    average = trainer.MovingAverage(model, 0.5)
    torch.nn.init.constant_(model.weight, 12.0)
    average.update(model)  # the first decay is 1 / 11
    assert average.model.weight.item() == pytest.approx(1 / 11 + 12 * 10 / 11)
    average.steps = 1000
    average.update(model)
    assert average.model.weight.item() == pytest.approx(((1 + 120) / 11 + 12) / 2)


def test_steps_on_one_window_lower_the_loss(case, task):
    image, labels = WindowStream([case], [1.0], task.windows, 0, 1)[0]
    run = trainer.Trainer.create(task, 17)
    losses = [run.train_step(image[None], labels[None], 0.0) for _ in range(8)]
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.97 * losses[0]


def test_run_writes_a_checkpoint_and_resumes_as_if_never_stopped(case, task, anatomy, tmp_path):
    def weights(folder, **options):
        return load_checkpoint(train.run(task, [case], anatomy, PREPROCESSING, tmp_path / folder, **options))

    whole = weights("whole", max_steps=4)
    stop_at_two = trainer.Trainer.train_step

    def interrupted(self, image, labels, progress):
        if self.step == 2:
            self.save_state(tmp_path / "cut" / train.STATE_FILE)
            raise KeyboardInterrupt
        return stop_at_two(self, image, labels, progress)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(trainer.Trainer, "train_step", interrupted)
        weights("cut", max_steps=4)
    resumed = weights("cut", max_steps=4, resume=True)
    assert all(torch.equal(t, resumed.weights[name]) for name, t in whole.weights.items())
    assert whole.provenance["steps"] == 4 and whole.provenance["data"] == ["phantom"]
    assert whole.provenance["task"]["seed"] == 3
    logged = json.loads((tmp_path / "whole" / train.LOG_FILE).read_text().splitlines()[-1])
    assert set(logged["dice"]) == {"phantom", "synthetic"}


def test_a_peer_is_trained_by_the_same_run_and_its_checkpoint_says_so(case, task, anatomy, tmp_path):
    pytest.importorskip("monai")
    from threedme_ros.training.peer_checkpoint import load_peer

    task = dataclasses.replace(task, model="segresnet", clock="cpu")
    checkpoint = load_peer(train.run(task, [case], anatomy, PREPROCESSING, tmp_path, max_steps=2))
    assert checkpoint.config.size == "segresnet" and checkpoint.config.num_classes == 17
    assert checkpoint.provenance["steps"] == 2 and checkpoint.provenance["task"]["clock"] == "cpu"
    assert checkpoint.provenance["wall_minutes"] >= 0 and checkpoint.provenance["threads"] == torch.get_num_threads()


def test_a_run_starts_from_the_weights_of_another(case, task, anatomy, tmp_path):
    first = train.run(task, [case], anatomy, PREPROCESSING, tmp_path / "first", max_steps=2)
    run = trainer.Trainer.create(task, 17)
    run.start_from(load_checkpoint(first))
    expected = load_checkpoint(first).build().state_dict()
    for model in (run.model, run.average.model):
        assert all(torch.equal(t, expected[name]) for name, t in model.state_dict().items())
    second = train.run(task, [case], anatomy, PREPROCESSING, tmp_path / "second", initial=first, max_steps=1)
    assert load_checkpoint(second).provenance["initial"]["checkpoint"] == load_checkpoint(first).hash


def test_the_weights_of_another_network_are_refused(task):
    other = ModelConfig("small", 5, channels=(8, 8, 16), vit_dim=24, vit_depth=1, vit_heads=2, plane_heads=2)
    with pytest.raises(TrainingError, match=r"initial network .*num_classes=5"):
        trainer.Trainer.create(task, 17).start_from(SimpleNamespace(config=other))


def test_non_finite_loss_names_the_step_and_leaves_the_weights(case, task):
    run = trainer.Trainer.create(task, 17)
    before = [p.clone() for p in run.model.parameters()]
    run.step = 41
    with pytest.raises(TrainingError, match="step 41: loss nan"):
        run.train_step(torch.full((1, 1, 32, 32, 32), math.nan), torch.zeros(1, 32, 32, 32, dtype=torch.uint8), 0.0)
    assert all(torch.equal(a, b) for a, b in zip(before, run.model.parameters(), strict=True))


def test_state_of_another_task_or_no_state_is_refused(task, tmp_path):
    trainer.Trainer.create(task, 17).save_state(tmp_path / "state.pt")
    other = trainer.Trainer.create(dataclasses.replace(task, seed=4), 17)
    with pytest.raises(TrainingError, match="another seed"):
        other.load_state(tmp_path / "state.pt")
    (tmp_path / "broken.pt").write_bytes(b"no state")
    with pytest.raises(TrainingError, match=r"broken\.pt: not a training state"):
        other.load_state(tmp_path / "broken.pt")


@pytest.mark.parametrize("change", [{"task": 3}, {"task": "["}, {"model": 3}, {"optimiser": {}}, {"step": "x"}])
def test_a_state_of_odd_things_is_refused(task, tmp_path, change):
    run, path = trainer.Trainer.create(task, 17), tmp_path / "state.pt"
    run.save_state(path)
    torch.save(torch.load(path, weights_only=True) | change, path)
    with pytest.raises(TrainingError, match=r"state\.pt: not a training state"):
        run.load_state(path)


def test_flat_windows_run_in_fp32_and_others_in_bf16():
    for shape, expected in (((16, 48, 48), torch.float32), ((32, 32, 32), torch.bfloat16)):
        with autocast_for(torch.zeros(1, 1, *shape), "bf16"):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == expected


def test_shipped_task_loads_and_its_overrides_hold():
    task = load_task(share_path("config/tasks/demo_abdomen.yaml"), minutes=5, seed=None)
    assert task.minutes == 5 and task.seed == 20 and set(task.cases) == {"A", "B"}
    assert Anatomy.from_yaml(share_path(task.anatomy)).num_classes == 17


def test_a_peer_in_the_place_of_the_recipes_network_brings_its_own_learning_rate():
    recipe = share_path("config/tasks/demo_abdomen.yaml")
    task = load_task(recipe, model="swinunetr")
    assert (task.learning_rate, task.weight_decay) == (5e-4, 1e-2)
    assert load_task(recipe, model="swinunetr", learning_rate=2e-4).learning_rate == 2e-4
    assert load_task(recipe, model="base").learning_rate == load_task(recipe).learning_rate


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\nanatomy: a\ncases: {A: 1}\nminuts: 3", r"unknown keys \['minuts'\]"),
        ("name: x\nanatomy: a\ncases: {A: 1}\nminutes: -3", "minutes -3: expected a positive number"),
        ("name: x\nanatomy: a\ncases: {A: 1}\nminutes: .inf", "minutes inf: expected a positive number"),
        ("name: x\nanatomy: a\ncases: {A: 1}\nlearning_rate: .nan", "learning_rate nan: expected a positive number"),
        ("name: x\nanatomy: a\ncases: {A: 1}\nclip_norm: true", "clip_norm True: expected a positive number"),
        ("name: x\nanatomy: a\ncases: {A: 1}\nweight_decay: [1]", r"weight_decay \[1\]: expected a number from 0"),
        ("name: x\nanatomy: a\ncases: {A: 1}\nweight_decay: .nan", "weight_decay nan: expected a number from 0"),
        ("name: x\nanatomy: {a: 1}\ncases: {A: 1}", "anatomy {'a': 1}: expected the file of a label table"),
        ("name: x\nanatomy: a\ncases: {A: .inf}", "case A inf: expected a positive number"),
        ("name: x\nanatomy: a\ncases: {3: 1}", "cases {3: 1}: expected a positive weight"),
        ("name: x\nanatomy: a\ncases: {A: 1}\nmodel: huge", "model 'huge': expected one of"),
        ("name: x\nanatomy: a\ncases: {A: 1}\nclock: sun", "clock 'sun': expected one of"),
        ("name: x\nanatomy: a\ncases: {A: 1}\nphantoms: {count: 3}", "phantoms count 3, share 0.0"),
        ("- a list", "expected a mapping"),
        ("{", "task.yaml"),
    ],
)
def test_bad_task_is_named(text, message, tmp_path):
    (tmp_path / "task.yaml").write_text(text)
    with pytest.raises(TrainingError, match=message):
        load_task(tmp_path / "task.yaml")
