import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from threedme_ros.anatomy import Anatomy
from threedme_ros.model.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from threedme_ros.model.config import ModelConfig, Preprocessing
from threedme_ros.model.threedme import ThreeDME
from threedme_ros.model.weights_file import content_hash
from threedme_ros.share import share_path


@pytest.fixture(scope="module")
def anatomy():
    return Anatomy.from_yaml(share_path("config/anatomy.yaml"))


@pytest.fixture(scope="module")
def model(anatomy):
    torch.manual_seed(0)
    return ThreeDME(ModelConfig.of_size("small", anatomy.num_classes)).eval()


@pytest.fixture
def path(tmp_path, model, anatomy):
    path = tmp_path / "net.safetensors"
    save_checkpoint(path, model, anatomy, Preprocessing(spacing_mm=(2, 2, 3)), {"seed": 7})
    return path


def rewrite(path, change):
    """Save the file again after ``change(metadata, weights)``, keeping the stored hash."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(metadata, weights)
    save_file(weights, path, metadata)


def test_everything_comes_back(path, model, anatomy):
    checkpoint = load_checkpoint(path)
    assert checkpoint.config == model.config
    assert checkpoint.anatomy == anatomy
    assert checkpoint.preprocessing == Preprocessing(spacing_mm=(2, 2, 3))
    assert checkpoint.provenance == {"seed": 7}
    x = torch.randn(1, 1, 16, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(checkpoint.build()(x), model(x), rtol=0, atol=0.02)  # weights stored as fp16


def test_the_hash_follows_the_content(path, tmp_path, model, anatomy):
    same = save_checkpoint(tmp_path / "b.safetensors", model, anatomy, Preprocessing((2, 2, 3)), {"seed": 7})
    other = save_checkpoint(tmp_path / "c.safetensors", model, anatomy, Preprocessing((3, 3, 3)), {"seed": 7})
    assert load_checkpoint(path).hash == same != other


def test_a_changed_weight_is_noticed(path):
    rewrite(path, lambda metadata, weights: weights["decoder.head.bias"].add_(1))
    with pytest.raises(CheckpointError, match=r"hash .* does not match the content"):
        load_checkpoint(path)


def test_a_changed_label_table_is_noticed(path):
    def rename(metadata, weights):
        metadata["anatomy"] = metadata["anatomy"].replace("spleen", "spline")

    rewrite(path, rename)
    with pytest.raises(CheckpointError, match="does not match the content"):
        load_checkpoint(path)


def test_other_files_are_refused(tmp_path):
    text = tmp_path / "notes.safetensors"
    text.write_text("not a checkpoint")
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load_checkpoint(text)
    bare = tmp_path / "bare.safetensors"
    save_file({"x": torch.zeros(1)}, bare)
    with pytest.raises(CheckpointError, match="format None, expected 'threedme-1'"):
        load_checkpoint(bare)
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_checkpoint(tmp_path / "absent.safetensors")


def test_a_truncated_file_is_refused(path):
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load_checkpoint(path)


def test_weights_of_another_shape_are_named(path):
    checkpoint = load_checkpoint(path)
    checkpoint.weights["decoder.head.bias"] = torch.zeros(3)
    del checkpoint.weights["encoder.join.weight"]
    with pytest.raises(CheckpointError, match=r"decoder.head.bias has shape \(3,\).*missing encoder.join.weight"):
        checkpoint.build()


def test_a_non_finite_weight_is_not_saved(tmp_path, anatomy):
    model = ThreeDME(ModelConfig.of_size("small", anatomy.num_classes))
    with torch.no_grad():
        model.decoder.head.weight[0] = 1e30  # finite in fp32, infinite in fp16
    with pytest.raises(CheckpointError, match=r"non-finite weights in decoder\.head\.weight"):
        save_checkpoint(tmp_path / "x.safetensors", model, anatomy, Preprocessing(), {})
    assert list(tmp_path.iterdir()) == []


def test_metadata_is_plain_json(path):
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["config"])["size"] == "small"


def test_non_finite_weights_are_refused_even_under_a_right_hash(path):
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    weights["decoder.head.bias"][0] = float("nan")
    save_file(weights, path, metadata | {"hash": content_hash(metadata, weights)})
    with pytest.raises(CheckpointError, match=r"not finite numbers in decoder\.head\.bias"):
        load_checkpoint(path)


@pytest.mark.parametrize("text", ["[" * 5000, '{"size": ' * 900, "9" * 5000, '{"size": "a", "size": "b"}', "[1]"])
def test_metadata_that_is_no_config_is_refused_in_one_line(path, text):
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() | {"config": text}
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(weights, path, metadata | {"hash": content_hash(metadata, weights)})
    with pytest.raises(CheckpointError, match="metadata does not fit") as caught:
        load_checkpoint(path)
    assert str(caught.value).isprintable() and len(str(caught.value)) <= 1500


@pytest.mark.parametrize("key", ("provenance", "config", "preprocessing"))
@pytest.mark.parametrize("text", ("[]", "null", "3"))
def test_metadata_of_another_kind_is_refused(path, key, text):
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() | {key: text}
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(weights, path, metadata | {"hash": content_hash(metadata, weights)})
    with pytest.raises(CheckpointError, match="expected an object"):
        load_checkpoint(path)


def test_a_network_of_gigabytes_in_a_small_file_is_refused_before_it_is_built(path):
    large = ModelConfig("small", 23, vit_depth=48, vit_dim=1536)
    hostile = replace(load_checkpoint(path), config=large, weights={"a": torch.zeros(1)})
    before = torch.get_rng_state()
    with pytest.raises(CheckpointError, match=r"do not fit a small model: missing decoder\.head\.bias"):
        hostile.build()
    assert torch.equal(torch.get_rng_state(), before)  # which real weights are drawn from
