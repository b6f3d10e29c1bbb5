from dataclasses import replace

import pytest
import torch

from threedme_ros.model.classifier import AttentionPool, Classifier, load_classifier, save_classifier
from threedme_ros.model.config import ModelConfig
from threedme_ros.model.weights_file import CheckpointError

CONFIG = ModelConfig.of_size("small", 3, channels=(8, 8, 16), vit_dim=24, vit_depth=1, plane_heads=2)


def test_equal_scores_pool_to_the_mean():
    torch.manual_seed(0)
    pool = AttentionPool(6)
    torch.nn.init.zeros_(pool.score.weight)
    nodes = torch.randn(2, 5, 6)
    pooled, attention = pool(nodes)
    torch.testing.assert_close(attention, torch.full((2, 5), 0.2))
    torch.testing.assert_close(pooled, pool.norm(nodes).mean(dim=1))


def test_attention_follows_the_gated_score():
    torch.manual_seed(0)
    pool = AttentionPool(4)
    nodes = torch.randn(1, 3, 4)
    h = pool.norm(nodes)[0]
    scores = [pool.score(torch.tanh(pool.value(k)) * torch.sigmoid(pool.gate(k))).item() for k in h]
    expected = torch.tensor(scores).exp() / torch.tensor(scores).exp().sum()
    torch.testing.assert_close(pool(nodes)[1][0], expected)


def test_any_window_shape_gives_one_row_of_logits():
    torch.manual_seed(0)
    model = Classifier(CONFIG).eval()
    for shape in ((32, 32, 32), (16, 32, 48)):
        x = torch.zeros(2, 1, *shape)
        assert model(x).shape == (2, 3)
        assert model.embed(x).shape == (2, 16 + 24)


def test_shape_that_is_no_multiple_of_the_stride_is_refused():
    with pytest.raises(ValueError, match="multiples of 16"):
        Classifier(CONFIG)(torch.zeros(1, 1, 28, 28, 28))


def test_file_round_trip(tmp_path):
    torch.manual_seed(0)
    model = Classifier(CONFIG).eval()
    path = tmp_path / "c.safetensors"
    key = save_classifier(path, model, ["a", "b", "c"], (32, 32, 32), {"task": "t"}, torch.float32)
    loaded = load_classifier(path)
    assert (loaded.hash, loaded.classes, loaded.input_shape) == (key, ("a", "b", "c"), (32, 32, 32))
    x = torch.rand(1, 1, 32, 32, 32)
    torch.testing.assert_close(loaded.build()(x), model(x))


def test_a_classifier_without_a_vit_branch_cannot_be_built(tmp_path):
    save_classifier(tmp_path / "c.safetensors", Classifier(CONFIG), ["a", "b", "c"], (32, 32, 32), {})
    checkpoint = load_classifier(tmp_path / "c.safetensors")
    with pytest.raises(CheckpointError, match="no such network: vit False: expected a ViT branch"):
        replace(checkpoint, config=replace(CONFIG, vit=False)).build()


def test_class_names_must_fit(tmp_path):
    save_classifier(tmp_path / "c.safetensors", Classifier(CONFIG), ["a"], (32, 32, 32), {})
    with pytest.raises(CheckpointError, match="1 class names for 3 classes"):
        load_classifier(tmp_path / "c.safetensors")


@pytest.mark.parametrize(
    ("classes", "shape"),
    [
        (["a", "b", 3], (32, 32, 32)),
        (["a", "b", "c\x1b[2J"], (32, 32, 32)),
        (["a", "b", "c"], (float("inf"), 32, 32)),
        (["a", "b", "c"], (32, 32, 10**9)),
        (["a", "b", "c"], (32, 32)),
    ],
)
def test_classes_and_shapes_that_cannot_be_are_refused(tmp_path, classes, shape):
    save_classifier(tmp_path / "c.safetensors", Classifier(CONFIG), classes, shape, {})
    with pytest.raises(CheckpointError, match="expected"):
        load_classifier(tmp_path / "c.safetensors")
