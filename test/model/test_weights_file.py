import json
import struct

import pytest
import torch
from torch import nn

from threedme_ros.model.weights_file import CheckpointError, built, planned, read_weights

GOOD = {"weight": torch.eye(3), "bias": torch.ones(3)}


def test_memory_is_taken_only_once_every_tensor_fits():
    devices = []

    def build() -> nn.Module:
        devices.append(torch.empty(0).device.type)
        return nn.Linear(3, 3)

    with pytest.raises(CheckpointError, match=r"do not fit a layer: bias has shape \(4,\), expected \(3,\); missing w"):
        built(build, {"bias": torch.ones(4)}, "a layer")
    assert devices == ["meta"]
    layer = built(build, GOOD, "a layer")
    assert devices == ["meta", "meta", "cpu"]
    assert layer(torch.tensor([1.0, 2, 3])).tolist() == [2, 3, 4] and not layer.training


def test_a_plan_draws_nothing_from_the_random_generator():
    before = torch.get_rng_state()
    assert planned(lambda: nn.Linear(3, 3)).weight.is_meta
    assert torch.equal(torch.get_rng_state(), before)


def test_what_cannot_be_built_is_no_network():
    def build() -> nn.Module:
        raise ValueError("heads 5: expected 4")

    with pytest.raises(CheckpointError, match="no such network: heads 5: expected 4"):
        planned(build)


@pytest.mark.parametrize("shape", ([2**64 - 1, 0], [2**32, 2**32, 0]))
def test_a_shape_that_no_tensor_has_is_refused_in_one_line(tmp_path, shape):
    head = json.dumps({"t": {"dtype": "U8", "shape": shape, "data_offsets": [0, 0]}}).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(head)) + head)
    with pytest.raises(CheckpointError, match="not a readable safetensors file") as caught:
        read_weights(path, "x")
    assert "C++" not in str(caught.value)
