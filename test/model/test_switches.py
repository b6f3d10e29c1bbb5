"""Networks with a part left out, for the ablation: the part is gone, and the rest is the network it was."""

import json
from dataclasses import asdict, fields

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from threedme_ros.model.checkpoint import load_checkpoint, save_checkpoint
from threedme_ros.model.classifier import Classifier
from threedme_ros.model.config import SWITCHES, ModelConfig, Preprocessing
from threedme_ros.model.encoder import Encoder
from threedme_ros.model.foundation import load_foundation, save_foundation
from threedme_ros.model.reconstruction import MaskedAutoencoder
from threedme_ros.model.threedme import ThreeDME
from threedme_ros.model.weights_file import CheckpointError, content_hash


def names(**changes) -> set[str]:
    """The parameters of a small network."""
    return {name for name, _ in ThreeDME(ModelConfig.of_size("small", 3, **changes)).named_parameters()}


@pytest.fixture(scope="module")
def full() -> set[str]:
    return names()


def test_no_graph_leaves_one_projection_to_stride_8(full):
    left = names(graph=False)
    assert left < full
    assert {n for n in left if n.startswith("encoder.graph.")} == {
        f"encoder.graph.down.{n}" for n in ("0.weight", "0.bias", "1.weight", "1.bias")
    }
    assert all(n.startswith("encoder.graph.") for n in full - left)


def test_no_vit_leaves_no_token_anywhere(full):
    removed = full - names(vit=False)
    outside = {n for n in removed if not n.startswith(("encoder.vit.", "encoder.join."))}
    assert outside == {"encoder.fusion.0.attention.value.2.weight", "encoder.fusion.0.attention.value.2.bias"}
    assert not any(n.startswith(("encoder.vit.", "encoder.join.")) for n in full - removed)


def test_no_plane_attention_leaves_no_fusion_block(full):
    assert full - names(plane_attention=False) == {n for n in full if n.startswith("encoder.fusion.")}


@pytest.mark.parametrize("switch", SWITCHES)
def test_without_a_part_every_parameter_still_trains(switch):
    config = ModelConfig.of_size("small", 3, **{switch: False})
    model = ThreeDME(config)
    logits = model(torch.randn(1, 1, 32, 16, 48))
    assert logits.shape == (1, 3, 32, 16, 48)
    logits.square().mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    masked = MaskedAutoencoder(config)
    mask = torch.zeros(1, 2, 1, 2, dtype=torch.bool)
    mask[:, 0] = True
    masked(torch.randn(1, 1, 32, 16, 32), mask).square().mean().backward()
    assert [name for name, p in masked.named_parameters() if p.grad is None] == []


@torch.inference_mode()
def reach(axis_voxels: int = 192, **changes) -> int:
    """How far, in voxels along W, a change at one end of a long window is felt at stride 8."""
    torch.manual_seed(0)
    model = Encoder(ModelConfig.of_size("small", 3, **changes)).eval()
    x = torch.randn(1, 1, 16, 16, axis_voxels)
    other = x.clone()
    other[..., 0] += 1
    moved = (model(x).level8 - model(other).level8).abs().amax((0, 1, 2, 3)) > 1e-6
    return 8 * (1 + int(moved.nonzero().max()))


def test_only_the_vit_and_the_feature_graph_reach_across_a_window():
    assert reach() == 192
    assert reach(graph=False, plane_attention=False) == 192
    assert reach(graph=False, vit=False, plane_attention=False) <= 16


@pytest.mark.parametrize("value", [0, 1, "yes", None])
def test_a_switch_is_true_or_false(value):
    with pytest.raises(ValueError, match=f"graph {value!r}: expected true or false"):
        ModelConfig.of_size("small", 3, graph=value)


def test_a_classifier_needs_the_vit():
    with pytest.raises(ValueError, match="vit False: expected a ViT branch"):
        Classifier(ModelConfig.of_size("small", 3, vit=False))


def test_a_checkpoint_from_before_the_switches_loads_with_its_hash(tmp_path, anatomy):
    path = tmp_path / "new.safetensors"
    save_checkpoint(path, ThreeDME(ModelConfig.of_size("small", anatomy.num_classes)), anatomy, Preprocessing(), {})
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    config = json.loads(metadata["config"])
    metadata["config"] = json.dumps({key: value for key, value in config.items() if key not in SWITCHES})
    metadata["hash"] = content_hash({k: v for k, v in metadata.items() if k != "hash"}, weights)
    old = tmp_path / "old.safetensors"
    save_file(weights, old, metadata)
    checkpoint = load_checkpoint(old)
    assert checkpoint.hash == metadata["hash"]
    assert all(getattr(checkpoint.config, switch) for switch in SWITCHES)
    checkpoint.build()


def test_the_switches_are_stored_and_a_foundation_without_a_part_is_named(tmp_path):
    config = ModelConfig.of_size("small", 3, vit=False)
    assert {f.name for f in fields(ModelConfig)} >= set(SWITCHES) and asdict(config)["vit"] is False
    save_foundation(tmp_path / "f.safetensors", Encoder(config), Preprocessing(), {})
    foundation = load_foundation(tmp_path / "f.safetensors")
    assert foundation.config.vit is False
    foundation.initialise(Encoder(config))
    with pytest.raises(CheckpointError, match="vit True, the foundation has False"):
        foundation.initialise(Encoder(ModelConfig.of_size("small", 3)))
