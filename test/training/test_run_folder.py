"""What lies in a run's folder may be damaged: it is refused by file and line, and never with another error."""

import pickle
import random
import warnings

import pytest
import torch

from threedme_ros.training.errors import TrainingError
from threedme_ros.training.run_folder import RunFolder, read_state_file


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path)


def test_a_log_is_read_line_by_line_but_for_one_cut_off(folder):
    folder.log.write_bytes(b'{"step": 0, "loss": 2.5}\n{"step": 1, "loss": 2}\n{"step": 2, "lo')
    assert folder.read_log() == [{"step": 0, "loss": 2.5}, {"step": 1, "loss": 2}]
    assert folder.rewind_log(1) == [{"step": 0, "loss": 2.5}] == folder.read_log()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"not json", "line 2: no usable JSON"),
        (b"\xff", "line 2: no usable JSON"),
        (b"1", "line 2: JSON int: expected an object"),
        (b"{}", "line 2: step None, loss None: expected two numbers"),
        (b'{"step": "3", "loss": 1}', "line 2: step '3', loss 1"),
        (b'{"step": 3, "loss": NaN}', "line 2: step 3, loss nan"),
        (b'{"step": 3, "loss": 1' + b"0" * 400 + b"}", "line 2: step 3, loss 1000"),
        (b"[" * 5000, "line 2: no usable JSON"),
    ],
    ids=range(8),
)
def test_a_line_that_is_no_steps_is_named(folder, line, reason):
    folder.log.write_bytes(b'{"step": 0, "loss": 2.5}\n' + line + b"\n")
    for read in (folder.read_log, lambda: folder.rewind_log(1)):
        with pytest.raises(TrainingError, match=rf"metrics\.jsonl, {reason}"):
            read()


@pytest.mark.parametrize("data", [b"", b"no state", pickle.dumps({"a": {1, 2}}, protocol=2), b"PK\x03\x04" + bytes(90)])
def test_what_torch_did_not_save_is_no_state(folder, data):
    folder.state.write_bytes(data)
    with pytest.raises(TrainingError, match=r"state\.pt: not a training state"):
        folder.read_state()


def test_a_state_is_a_mapping(folder):
    torch.save([1, 2], folder.state)
    with pytest.raises(TrainingError, match=r"not a training state \(a list\): expected a mapping"):
        read_state_file(folder.state)


def test_a_damaged_state_is_refused_whatever_torch_says_of_it(folder):
    folder.write_state({"step": 3, "model": {"a": torch.zeros(4, 4)}, "task": "{}", "x": [1, 2.0, "s"]})
    good, rng, refused = folder.state.read_bytes(), random.Random(0), 0
    for _ in range(150):
        data = bytearray(good)
        for _ in range(2):
            data[rng.randrange(60, 700)] = rng.randrange(256)
        folder.state.write_bytes(data)
        with warnings.catch_warnings(action="ignore"):  # of odd pickle protocols
            try:
                assert isinstance(folder.read_state(), dict)
            except TrainingError:
                refused += 1
    assert refused > 50
