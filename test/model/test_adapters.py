import copy
from dataclasses import replace

import pytest
import torch

from threedme_ros.model.adapters import (
    KINDS,
    Adaptation,
    Adapter,
    adapted_model,
    adapted_state,
    load_adapter,
    load_base,
    merge,
    save_adapter,
    trained_share,
)
from threedme_ros.model.checkpoint import save_checkpoint
from threedme_ros.model.config import ModelConfig, Preprocessing
from threedme_ros.model.encoder import Encoder
from threedme_ros.model.foundation import load_foundation, save_foundation
from threedme_ros.model.threedme import ThreeDME
from threedme_ros.model.weights_file import CheckpointError

CONFIG = ModelConfig.of_size("small", 3, channels=(8, 8, 16), vit_dim=24, vit_depth=1, plane_heads=2)


def image(channels: int = 1) -> torch.Tensor:
    return torch.rand(1, channels, 32, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def shaken(model: torch.nn.Module) -> None:
    """What training would do: every trained parameter moves."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))


@pytest.fixture(scope="module")
def foundation_file(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("foundation") / "foundation.safetensors"
    encoder = Encoder(CONFIG)
    encoder(image())  # statistics that are not those of a new network
    save_foundation(path, encoder, Preprocessing(), {})
    return path


@pytest.fixture(scope="module")
def foundation(foundation_file):
    return load_foundation(foundation_file)


def adapter_of(foundation, adaptation, kind="segmentation", config=CONFIG, new_stem=False) -> Adapter:
    return Adapter(kind, foundation.hash, config, adaptation, new_stem, {"name": "x"}, {}, "", {"steps": 1})


def test_a_fresh_low_rank_adapter_changes_nothing(foundation):
    torch.manual_seed(3)
    plain = ThreeDME(CONFIG).eval()
    foundation.initialise(plain.encoder)
    adapted = copy.deepcopy(plain)
    Adaptation("lora").apply(adapted)
    torch.testing.assert_close(adapted(image()), plain(image()), atol=0, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_merged_network_equals_the_adapted_one(foundation, kind):
    model = adapted_model(kind, CONFIG, foundation, Adaptation("lora", rank=4), False)
    shaken(model)
    model.eval()
    names = set(KINDS[kind](CONFIG).state_dict())
    with torch.inference_mode():
        before = model(image())
        merge(model)
        torch.testing.assert_close(model(image()), before, atol=1e-5, rtol=0)
    assert set(model.state_dict()) == names


def test_low_rank_update_is_scaled_b_times_a(foundation):
    model = adapted_model("segmentation", CONFIG, foundation, Adaptation("lora", rank=2, alpha=6.0), False)
    layer = model.encoder.vit.blocks[0].attention.qkv
    original = layer.weight.detach().clone()
    update = layer.parametrizations.weight[0]
    with torch.no_grad():
        update.a.fill_(1.0)
        update.b.fill_(0.5)
    torch.testing.assert_close(layer.weight, original + 6.0 / 2 * (2 * 0.5 * 1.0))  # rank x b x a in every place


def test_each_method_trains_what_it_says(foundation):
    state = {}
    for method in ("frozen", "lora", "full"):
        model = adapted_model("segmentation", CONFIG, foundation, Adaptation(method), False)
        state[method] = set(adapted_state(model))
    assert all(name.startswith("decoder.") for name in state["frozen"])
    added = state["lora"] - state["frozen"]
    assert {n.split(".")[-1] for n in added if "parametrizations" in n} == {"a", "b"}
    assert all("norm" in n or n.split(".")[-2] == "1" for n in added if "parametrizations" not in n)
    assert any("graph" in n for n in added) and any("vit" in n for n in added)
    assert state["full"] == set(ThreeDME(CONFIG).state_dict())


def test_a_shared_encoder_keeps_its_statistics_while_the_decoder_learns_its_own(foundation):
    for method, moves in (("frozen", False), ("lora", False), ("full", True)):
        adaptation = Adaptation(method)
        model = adapted_model("segmentation", CONFIG, foundation, adaptation, False)
        before = {name: b.clone() for name, b in model.named_buffers()}
        adaptation.train_mode(model)
        model(image())
        changed = {name for name, b in model.named_buffers() if not torch.equal(b, before[name])}
        assert any(name.startswith("decoder.") for name in changed)
        assert any(name.startswith("encoder.") for name in changed) == moves


def test_a_few_percent_of_the_small_encoder_is_trained():
    model = ThreeDME(ModelConfig.of_size("small", 14))
    encoder = sum(p.numel() for p in model.encoder.parameters())
    Adaptation("lora", rank=8).apply(model)
    trained, total = trained_share(model)
    head = sum(p.numel() for p in model.decoder.parameters())
    assert trained - head < 0.1 * encoder
    assert total == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("method", ["frozen", "lora"])
def test_file_holds_only_what_was_trained_and_gives_the_same_network(foundation, tmp_path, method):
    adaptation = Adaptation(method, rank=4)
    model = adapted_model("segmentation", CONFIG, foundation, adaptation, False)
    shaken(model)
    model.eval()
    path = tmp_path / "adapter.safetensors"
    save_adapter(path, model, adapter_of(foundation, adaptation))
    loaded = load_adapter(path)
    assert set(loaded.weights) == set(adapted_state(model))
    assert (loaded.task, loaded.provenance, loaded.base) == ({"name": "x"}, {"steps": 1}, foundation.hash)
    with torch.inference_mode():
        torch.testing.assert_close(loaded.over(foundation)(image()), model(image()), atol=1e-5, rtol=0)


def test_four_channels_train_a_new_first_convolution(foundation, tmp_path):
    config = ModelConfig(**{**CONFIG.__dict__, "in_channels": 4})
    adaptation = Adaptation("frozen")
    model = adapted_model("segmentation", config, foundation, adaptation, True)
    assert any(n.startswith("encoder.stem2.") and t.shape[1] == 4 * 8 for n, t in adapted_state(model).items())
    shaken(model)
    model.eval()
    path = tmp_path / "adapter.safetensors"
    save_adapter(path, model, adapter_of(foundation, adaptation, config=config, new_stem=True))
    with torch.inference_mode():
        torch.testing.assert_close(load_adapter(path).over(foundation)(image(4)), model(image(4)), atol=1e-5, rtol=0)


def test_another_foundation_is_refused_by_its_hash(foundation, tmp_path):
    model = adapted_model("segmentation", CONFIG, foundation, Adaptation("frozen"), False)
    path = tmp_path / "adapter.safetensors"
    save_adapter(path, model, adapter_of(foundation, Adaptation("frozen")))
    torch.manual_seed(5)
    save_foundation(tmp_path / "other.safetensors", Encoder(CONFIG), Preprocessing(), {})
    with pytest.raises(CheckpointError, match=f"adapter of the foundation {foundation.hash}"):
        load_adapter(path).over(load_foundation(tmp_path / "other.safetensors"))


def test_weights_of_another_method_are_named(foundation, tmp_path):
    model = adapted_model("segmentation", CONFIG, foundation, Adaptation("frozen"), False)
    path = tmp_path / "adapter.safetensors"
    save_adapter(path, model, adapter_of(foundation, Adaptation("lora")))
    with pytest.raises(CheckpointError, match=r"missing encoder\..*\.a"):
        load_adapter(path).over(foundation)


def test_an_adapter_of_no_known_kind_is_refused_when_it_is_loaded(foundation, tmp_path):
    model = adapted_model("segmentation", CONFIG, foundation, Adaptation("frozen"), False)
    path = tmp_path / "adapter.safetensors"
    save_adapter(path, model, adapter_of(foundation, Adaptation("frozen"), kind="x"))
    with pytest.raises(CheckpointError, match=r"kind 'x': expected one of \('segmentation', 'classification'\)"):
        load_adapter(path)


def test_an_adapter_that_gives_no_network_is_refused_before_memory_is_taken(foundation):
    vast = replace(CONFIG, vit_depth=48, vit_dim=1536)
    for config, reason in ((replace(CONFIG, vit=False), "vit False"), (vast, "vit_dim 1536, the foundation has 24")):
        before = torch.get_rng_state()
        with pytest.raises(CheckpointError, match=reason):
            adapter_of(foundation, Adaptation("frozen"), "classification", config).over(foundation)
        assert torch.equal(torch.get_rng_state(), before)  # which real weights are drawn from


def test_an_update_past_what_a_weight_can_hold_is_refused(foundation):
    model = adapted_model("segmentation", CONFIG, foundation, Adaptation(), False)
    shaken(model)
    steep = replace(adapter_of(foundation, Adaptation(alpha=1e300)), weights=adapted_state(model))
    with pytest.raises(CheckpointError, match=r"not finite in encoder\."):
        steep.over(foundation)


def test_a_segmentation_checkpoint_serves_as_foundation(anatomy, tmp_path):
    torch.manual_seed(0)
    config = ModelConfig(**{**CONFIG.__dict__, "num_classes": anatomy.num_classes})
    model = ThreeDME(config)
    key = save_checkpoint(tmp_path / "c.safetensors", model, anatomy, Preprocessing(), {}, torch.float32)
    base = load_base(tmp_path / "c.safetensors")
    other = ThreeDME(CONFIG)
    base.initialise(other.encoder)
    assert base.hash == key
    torch.testing.assert_close(other.encoder.join.weight, model.encoder.join.weight)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "prompt"}, "method 'prompt'"),
        ({"rank": 0}, "rank 0"),
        ({"alpha": -1.0}, "alpha -1.0"),
        ({"alpha": float("inf")}, "alpha inf"),
        ({"alpha": 10**400}, "alpha 1000"),
        ({"alpha": True}, "alpha True"),
    ],
)
def test_bad_adaptations(changes, message):
    with pytest.raises(ValueError, match=message):
        Adaptation(**changes)


def test_light_methods_need_a_foundation():
    with pytest.raises(ValueError, match="without a foundation"):
        adapted_model("segmentation", CONFIG, None, Adaptation("frozen"), False)
