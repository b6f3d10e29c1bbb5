import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from threedme_ros import cli
from threedme_ros.model.config import ModelConfig
from threedme_ros.model.foundation import load_foundation
from threedme_ros.model.threedme import ThreeDME
from threedme_ros.training.distributed import launch_fabric
from threedme_ros.training.errors import TrainingError
from threedme_ros.training.pretrain import PretrainResult
from threedme_ros.training.pretrain import pretrain as pretrain_on
from threedme_ros.training.pretrain_task import load_pretrain_task
from threedme_ros.training.run_folder import RunFolder

pytest.importorskip("lightning")
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As the subprocesses run: sums are equal bit for bit only with the same number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def uninterrupted(tiny, volumes, tmp_path_factory):
    """The folder and the result of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    return RunFolder(folder), pretrain(tiny, volumes, folder)


def pretrain(task, *arguments, **more) -> PretrainResult:
    """On the CPU, also where there is a GPU."""
    return pretrain_on(task, *arguments, fabric=launch_fabric(task.precision, "cpu"), **more)


def weights_of(folder):
    state = RunFolder(folder).read_state()
    moments = {f"{n}.{k}": v for n, entry in state["optimiser"]["state"].items() for k, v in entry.items()}
    return state["step"], {**state["model"], **{f"average.{k}": v for k, v in state["average"].items()}, **moments}


def foundation_hash(folder):
    """Of weights and metadata, verified; the file itself keeps its metadata in any order."""
    return load_foundation(RunFolder(folder).foundation).hash


def assert_same_run(folder, other):
    assert RunFolder(folder).read_log() == RunFolder(other).read_log()
    (step, weights), (other_step, other_weights) = weights_of(folder), weights_of(other)
    assert step == other_step and weights.keys() == other_weights.keys()
    for name, tensor in weights.items():
        assert torch.equal(tensor, other_weights[name]), name
    assert foundation_hash(folder) == foundation_hash(other)


def command(scans, tiny_yaml, output, *more):
    where = ["--data", str(scans), "--output", str(output), "--task", str(tiny_yaml), "--accelerator", "cpu"]
    return ["-m", "threedme_ros.cli", "pretrain", *where, *map(str, more)]


def test_a_run_leaves_a_log_of_every_step_events_and_a_foundation(tiny, uninterrupted):
    folder, result = uninterrupted
    log = folder.read_log()
    assert [line["step"] for line in log] == list(range(8))
    assert [line["ratio"] for line in log] == pytest.approx(np.linspace(0.40, 0.85, 8))
    assert log[0]["block_tokens"] == [1, 1, 1] and log[-1]["block_tokens"] == [2, 1, 1]  # 144, 96, 96 of 80 mm
    assert any((folder.path / "tensorboard").iterdir())
    assert result.steps == 8 and result.loss == log[-1]["loss"]
    assert set(result.exam) == {"0", "0.5", "1"} and all(0 < scores["l1"] < 2 for scores in result.exam.values())
    foundation = load_foundation(result.foundation)
    assert foundation.hash == result.hash and foundation.provenance["task"] == tiny.as_dict()
    assert foundation.provenance["scans"] == 2


def test_a_foundation_starts_a_segmentation_network(tiny, uninterrupted):
    config = replace(tiny.model_config(), num_classes=5)
    network = ThreeDME(config)
    load_foundation(uninterrupted[1].foundation).initialise(network.encoder)
    averaged = uninterrupted[0].read_state()["average"]
    assert torch.equal(network.encoder.join.weight, averaged["encoder.join.weight"])


def test_pretraining_learns(tiny, volumes, tmp_path):
    result = pretrain(replace(tiny, steps=60, save_every=1000), volumes, tmp_path)
    losses = [line["loss"] for line in RunFolder(tmp_path).read_log()]
    assert np.mean(losses[-10:]) < 0.75 * np.mean(losses[:5])  # though ever more is hidden
    assert result.loss == pytest.approx(np.mean(losses[-6:]))


def killed(arguments, output, lines):
    """SIGKILL a real process as soon as it has logged that many lines; False if it was done before that was noticed."""
    process = subprocess.Popen([sys.executable, *arguments], env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    log = output / "metrics.jsonl"
    while process.poll() is None and not (log.is_file() and log.read_text().count("\n") >= lines):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("lines", [1, 5])
def test_killed_at_any_step_and_resumed_it_is_the_same_run(
    scans, tiny_yaml, tiny, volumes, uninterrupted, tmp_path, lines
):
    """After step 1 only the first state is there, after step 5 that of step 3."""
    outputs = (tmp_path / f"try{number}" for number in range(3))
    output = next(folder for folder in outputs if killed(command(scans, tiny_yaml, folder), folder, lines))
    assert RunFolder(output).read_state()["step"] < tiny.steps
    pretrain(tiny, volumes, output, resume=True)
    assert_same_run(output, uninterrupted[0].path)


def test_killed_while_it_writes_it_goes_on_from_the_state_before(tiny, volumes, uninterrupted, tmp_path, monkeypatch):
    """What a kill within a write leaves: half a state under another name, and half a line in the log."""

    def half(self, state):
        if state["step"] == 6:
            (self.path / ".state.pt.123").write_bytes(b"PK half")
            with self.log.open("a") as file:
                file.write('{"step": 6, "lo')
            raise KeyboardInterrupt
        torch.save(state, self.state)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RunFolder, "write_state", half)
        pretrain(tiny, volumes, tmp_path)
    pretrain(tiny, volumes, tmp_path, resume=True)
    assert_same_run(tmp_path, uninterrupted[0].path)
    assert not list(tmp_path.glob(".state.pt.*"))


def test_bf16_and_data_processes_resume_bit_for_bit_too(tiny, volumes, tmp_path, monkeypatch):
    task = replace(tiny, precision="bf16", workers=1)
    pretrain(task, volumes, tmp_path / "whole")

    def stop(self, *_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("threedme_ros.training.pretrain.examine", stop)  # after the last step, before the last state
        pretrain(task, volumes, tmp_path / "cut")
    pretrain(task, volumes, tmp_path / "cut", resume=True)
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


def test_a_finished_run_resumed_is_left_as_it_is(tiny, volumes, uninterrupted):
    log = uninterrupted[0].read_log()
    assert pretrain(tiny, volumes, uninterrupted[0].path, resume=True) == uninterrupted[1]
    assert uninterrupted[0].read_log() == log


def test_two_processes_have_the_gradients_of_one_with_twice_the_batch(scans, tiny_yaml, cache, tmp_path):
    """Through torchrun and gloo. After one step Adam's first moment is 0.1 of the gradient; nothing is clipped."""
    task = tmp_path / "task.yaml"
    task.write_text(tiny_yaml.read_text() + "clip_norm: 1.0e+6\n")
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    pair = command(scans, task, tmp_path / "two", "--steps", 3, "--batch-size", 2, "--cache", cache)
    done = subprocess.run([*run, *pair], env=ENVIRONMENT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "2 processes" in done.stdout
    arguments = command(scans, task, tmp_path / "one", "--steps", 3, "--batch-size", 4, "--cache", cache)
    assert cli.main(arguments[2:]) == 0

    two, one = (RunFolder(tmp_path / name) for name in ("two", "one"))
    for a, b in zip(two.read_log(), one.read_log(), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
        assert a["gradient_norm"] == pytest.approx(b["gradient_norm"], rel=1e-4)
    moments = [folder.read_state()["optimiser"]["state"] for folder in (two, one)]
    for number in moments[1]:
        a, b = (m[number]["exp_avg"] for m in moments)
        assert (a - b).abs().max() <= 1e-4 * b.abs().max() + 1e-7


def test_accumulated_micro_steps_are_one_larger_batch(tiny, volumes, tmp_path):
    """And so is a part of a run: the split may change when it goes on, as long as a step sees as many windows."""
    whole = replace(tiny, batch_size=4, steps=2)
    pretrain(whole, volumes, tmp_path / "whole")
    pretrain(replace(whole, batch_size=1, accumulate=4), volumes, tmp_path / "parts")
    logs = [RunFolder(tmp_path / name).read_log() for name in ("whole", "parts")]
    for a, b in zip(*logs, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
        assert a["gradient_norm"] == pytest.approx(b["gradient_norm"], rel=1e-4)


def test_a_loss_that_is_not_finite_stops_with_the_step_the_scan_and_the_last_good_state(
    tiny, volumes, tmp_path, monkeypatch
):
    """A scan that turns into NaN on the disk after it was cached and read four times."""

    class Rotting:
        name, shape, opened = volumes[0].name, volumes[0].shape, 0

        def open(self):
            self.opened += 1
            return volumes[0].open() if self.opened <= 4 else np.full(self.shape, np.nan, np.float16)

    monkeypatch.setattr("threedme_ros.training.pretrain.NORM_WINDOWS", 0)  # they are read to be saved
    pretrain(tiny, volumes[:1], tmp_path / "good")
    with pytest.raises(TrainingError, match=r"step 4: loss nan.*windows of first\.nii\.gz.*state stays in .*state\.pt"):
        pretrain(tiny, [Rotting()], tmp_path / "run")
    expected = RunFolder(tmp_path / "good").read_log()[:4]
    folder = RunFolder(tmp_path / "run")
    state = folder.read_state()
    assert state["step"] == 3
    assert all(torch.isfinite(tensor).all() for tensor in state["model"].values())
    assert folder.read_log() == expected


def test_a_full_disk_is_said_and_the_state_before_stays_whole(uninterrupted, tmp_path):
    """A real failed write: the process may not make files of more than 100 kB."""
    folder = RunFolder(tmp_path)
    state = uninterrupted[0].read_state()
    folder.write_state(state)
    before = folder.state.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match=r"state\.pt: cannot write the state, is the disk full\?; the previous state"):
            folder.write_state(state)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert folder.state.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]


def test_too_little_space_is_said_before_the_first_step(tiny, volumes, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(OSError, match=r"0 MB free, expected \d+ MB for the run"):
        pretrain(tiny, volumes, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 4}, "a run with other seed; name a new folder"),
        ({"model_changes": {"token_size": 8}}, "a run with other model_changes"),
        ({"batch_size": 3}, "a run with other windows a step"),
    ],
)
def test_a_state_of_another_run_is_refused_by_what_differs(tiny, volumes, uninterrupted, change, message):
    with pytest.raises(TrainingError, match=message):
        pretrain(replace(tiny, **change), volumes, uninterrupted[0].path, resume=True)


def test_a_state_of_other_scans_or_other_shapes_is_refused(tiny, volumes, uninterrupted, tmp_path):
    with pytest.raises(TrainingError, match="a run with other scans"):
        pretrain(tiny, volumes[:1], uninterrupted[0].path, resume=True)
    state = uninterrupted[0].read_state()
    state["model"]["head.voxels.bias"] = torch.zeros(3)
    torch.save(state, tmp_path / "state.pt")
    with pytest.raises(TrainingError, match=r"does not fit the network: .*head\.voxels\.bias"):
        pretrain(tiny, volumes, tmp_path, resume=True)
    torch.save(uninterrupted[0].read_state() | {"average": [3]}, tmp_path / "state.pt")
    with pytest.raises(TrainingError, match="does not fit the network"):
        pretrain(tiny, volumes, tmp_path, resume=True)
    torch.save(uninterrupted[0].read_state() | {"task": "["}, tmp_path / "state.pt")
    with pytest.raises(TrainingError, match=r"a run with other .*seed"):
        pretrain(tiny, volumes, tmp_path, resume=True)
    (tmp_path / "state.pt").write_text("no state")
    with pytest.raises(TrainingError, match=r"state\.pt: not a training state"):
        pretrain(tiny, volumes, tmp_path, resume=True)


def test_a_folder_that_holds_a_run_is_not_written_over(tiny, volumes, uninterrupted):
    with pytest.raises(TrainingError, match="holds a run: go on with --resume"):
        pretrain(tiny, volumes, uninterrupted[0].path)


def test_the_command_names_a_bad_case_or_skips_it_and_draws_the_preview(scans, tiny_yaml, tmp_path, capsys):
    import shutil

    from matplotlib.image import imread

    data = tmp_path / "data"
    shutil.copytree(scans, data)
    (data / "broken.nrrd").write_bytes(b"NRRD0004\ntype: nonsense\n\n")
    arguments = command(data, tiny_yaml, tmp_path / "run", "--steps", 2, "--schedule", "uniform")[2:]
    assert cli.main(arguments) == 2
    assert "broken.nrrd" in capsys.readouterr().err
    assert cli.main([*arguments, "--skip-bad-cases", "--preview", str(tmp_path / "picture")]) == 0
    said = capsys.readouterr().out
    assert "skipped broken.nrrd:" in said and "2 scans, 1 skipped; masking uniform" in said
    picture = imread(tmp_path / "picture" / "masking.png")
    assert picture.shape[0] > 1000 and picture.shape[1] > 1500 and picture[..., :3].std() > 0.1
    assert load_foundation(tmp_path / "run" / "foundation.safetensors").provenance["skipped_cases"] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: 0", "steps 0: expected a positive integer"),
        ("nonsense: 1", r"unknown keys \['nonsense'\]"),
        ("masking: {kind: random}", "masking kind 'random'"),
        ("model_changes: {depth: 3}", "model_changes {'depth': 3}"),
        ("crops: {shapes: [[16, 16, 16]], weights: [1]}", "expected at least two tokens of 16 voxels"),
        ("precision: fp16", "precision 'fp16': expected one of"),
        ("learning_rate: .inf", "learning_rate inf: expected a positive number"),
        ("clip_norm: .inf", "clip_norm inf: expected a positive number"),
        ("normalise_tokens: [1]", r"normalise_tokens \[1\]: expected true or false"),
        ("crops: {warp: {elastic_voxels: .nan}}", "elastic_voxels nan"),
        ("crops: {warp: {scale: [1, .inf]}}", r"scale \(1.0, inf\)"),
        ("masking: [1]", r"masking \[1\]: expected a mapping"),
        ("- a list", "expected a mapping, found list"),
    ],
)
def test_a_senseless_task_is_refused_by_key(tmp_path, text, message):
    path = tmp_path / "task.yaml"
    path.write_text(text)
    with pytest.raises(TrainingError, match=message):
        load_pretrain_task(path)


def test_the_shipped_task_is_sound():
    from threedme_ros.share import share_path

    task = load_pretrain_task(share_path("config/tasks/pretrain.yaml"), schedule="fixed", steps=7)
    assert task.masking.kind == "fixed" and task.steps == 7
    assert task.model_config() == ModelConfig.of_size("small", 2)
    assert json.loads(json.dumps(task.as_dict())) == task.as_dict()
