import pytest
import torch

from threedme_ros.model.checkpoint import CheckpointError, load_checkpoint
from threedme_ros.model.config import ModelConfig, Preprocessing
from threedme_ros.model.encoder import Encoder
from threedme_ros.model.foundation import load_foundation, save_foundation
from threedme_ros.model.threedme import ThreeDME

TINY = {"channels": (8, 12, 16), "vit_dim": 24, "vit_depth": 1, "vit_heads": 2, "plane_heads": 2, "knn": 4}
CONFIG = ModelConfig.of_size("small", 2, **TINY)


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return Encoder(CONFIG)


@pytest.fixture
def path(tmp_path, encoder):
    path = tmp_path / "foundation.safetensors"
    save_foundation(path, encoder, Preprocessing(spacing_mm=(2, 2, 3)), {"steps": 5})
    return path


def test_it_starts_a_network_of_any_number_of_classes(path, encoder):
    foundation = load_foundation(path)
    assert foundation.preprocessing == Preprocessing(spacing_mm=(2, 2, 3)) and foundation.provenance == {"steps": 5}
    network = ThreeDME(ModelConfig.of_size("small", 17, **TINY))
    foundation.initialise(network.encoder)
    for name, tensor in network.encoder.state_dict().items():
        assert torch.equal(tensor, encoder.state_dict()[name])


def test_four_equal_channels_give_what_one_gave(path, encoder):
    four = Encoder(ModelConfig.of_size("small", 2, in_channels=4, **TINY))
    load_foundation(path).initialise(four)
    x = torch.rand(1, 1, 16, 16, 32)
    with torch.inference_mode():
        torch.testing.assert_close(four(x.expand(-1, 4, -1, -1, -1)).tokens, encoder(x).tokens, rtol=0, atol=1e-5)


def test_another_network_is_refused_field_by_field(path):
    wider = Encoder(ModelConfig.of_size("small", 2, **TINY | {"vit_dim": 48, "knn": 6}))
    with pytest.raises(CheckpointError, match="vit_dim 48, the foundation has 24; knn 6, the foundation has 4"):
        load_foundation(path).initialise(wider)


def test_a_tensor_of_another_shape_is_named(path):
    foundation = load_foundation(path)
    foundation.weights["join.bias"] = torch.zeros(3)
    with pytest.raises(CheckpointError, match=r"join.bias has shape \(3,\), expected \(16,\)"):
        foundation.initialise(Encoder(CONFIG))


def test_a_foundation_without_its_first_convolution_is_refused_for_four_channels_too(path):
    foundation = load_foundation(path)
    four = Encoder(ModelConfig.of_size("small", 2, in_channels=4, **TINY))
    foundation.weights["stem2.conv.weight"] = torch.zeros(3)
    with pytest.raises(CheckpointError, match=r"stem2\.conv\.weight has shape \(3,\), expected \(8, 32, 3, 3, 3\)"):
        foundation.initialise(four)
    del foundation.weights["stem2.conv.weight"]
    with pytest.raises(CheckpointError, match=r"missing stem2\.conv\.weight"):
        foundation.initialise(four)


def test_a_foundation_is_no_checkpoint_and_a_damaged_one_is_noticed(path):
    with pytest.raises(CheckpointError, match="format 'threedme-foundation-1', expected 'threedme-1'"):
        load_checkpoint(path)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="does not match the content"):
        load_foundation(path)
