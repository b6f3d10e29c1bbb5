import numpy as np
import pytest
import torch

from threedme_ros.anatomy import Anatomy, Structure
from threedme_ros.model.checkpoint import load_checkpoint, save_checkpoint
from threedme_ros.model.config import ModelConfig, Preprocessing
from threedme_ros.model.prompt_decoder import PromptConfig, PromptDecoder
from threedme_ros.model.prompt_file import load_prompt_decoder
from threedme_ros.model.threedme import ThreeDME
from threedme_ros.model.weights_file import read_weights
from threedme_ros.phantom import phantom
from threedme_ros.training.case import training_case
from threedme_ros.training.prompt_clicks import correction, deepest, random_inside
from threedme_ros.training.prompt_train import PromptTask, prompt_loss, run, train_step
from threedme_ros.training.window_config import WindowConfig

CONFIG = ModelConfig("small", 3, channels=(8, 16, 24), vit_dim=24, vit_depth=1)
PREPROCESSING = Preprocessing(spacing_mm=(8.0, 8.0, 8.0))
TASK = PromptTask(
    structures=2, rounds=2, min_voxels=10, cases=(("P", 1.0),), windows=WindowConfig(((32, 32, 32),), (1.0,))
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("models") / "random.safetensors"
    anatomy = Anatomy([Structure(i, f"organ{i}", (1, 2, 3), 0.0, "context") for i in (1, 2)])
    save_checkpoint(path, ThreeDME(CONFIG), anatomy, PREPROCESSING, {})
    return load_checkpoint(path)


@pytest.fixture(scope="module")
def case():
    image, labels = phantom((40, 36, 44), (8.0, 8.0, 8.0))
    return training_case("P", image, labels, labels, PREPROCESSING)


def box(*slices: slice) -> np.ndarray:
    mask = np.zeros((20, 20, 20), bool)
    mask[slices] = True
    return mask


def test_the_deepest_voxel_is_the_middle_and_depth_is_in_millimetres():
    mask = box(slice(3, 8), slice(4, 13), slice(5, 12))
    assert deepest(mask, (1.0, 1.0, 1.0))[0] == 5
    # thin along the second axis in mm now: its middle, 8, decides
    assert deepest(mask, (9.0, 0.1, 9.0))[1] == 8
    with pytest.raises(ValueError, match="empty mask"):
        deepest(np.zeros((3, 3, 3), bool), (1.0, 1.0, 1.0))


def test_the_correction_is_the_middle_of_the_largest_mistake():
    truth = box(slice(2, 12), slice(2, 12), slice(2, 12))
    predicted = truth.copy()
    predicted[2:5, 2:5, 2:5] = False
    predicted[13:18, 13:18, 13:18] = True
    assert correction(predicted, truth, (1.0, 1.0, 1.0)) == ((15, 15, 15), False)
    predicted[13:, 13:, 13:] = False
    assert correction(predicted, truth, (1.0, 1.0, 1.0)) == ((3, 3, 3), True)
    assert correction(truth, truth, (1.0, 1.0, 1.0)) is None


def test_random_clicks_lie_inside_and_differ():
    mask = box(slice(3, 9), slice(3, 9), slice(3, 9))
    generator = torch.Generator().manual_seed(0)
    found = {random_inside(mask, (3.0, 3.0, 3.0), generator) for _ in range(20)}
    assert all(mask[index] for index in found)
    assert len(found) > 5


def test_the_loss_is_near_zero_for_a_sure_and_right_answer():
    truth = torch.zeros(4, 4, 4, dtype=torch.bool)
    truth[1:3] = True
    logits = (truth.float() * 2 - 1)[None, None] * 20
    assert prompt_loss(logits, truth) < 1e-3
    assert prompt_loss(-logits, truth) > 1.9


def test_a_step_gives_every_parameter_a_gradient_and_the_network_none(checkpoint, case):
    model = checkpoint.build().requires_grad_(False)
    torch.manual_seed(0)
    decoder = PromptDecoder(PromptConfig.of_model(CONFIG))
    image, labels = case.image[None, :32, :32, :32], case.labels[:32, :32, :32]
    dice = train_step(decoder, model, image, labels, TASK, (8.0, 8.0, 8.0), torch.Generator().manual_seed(0))
    assert len(dice) == 2
    assert all(torch.isfinite(p.grad).all() and p.grad.any() for p in decoder.parameters())
    nothing = torch.zeros_like(labels)
    assert train_step(decoder, model, image, nothing, TASK, (8.0, 8.0, 8.0), torch.Generator()) == []


def test_a_budget_in_steps_gives_the_same_file_twice_bound_to_its_checkpoint(checkpoint, case, tmp_path):
    weights = []
    for name in ("first", "second"):
        path = run(TASK, [case], checkpoint, tmp_path / f"{name}.safetensors", max_steps=2, say=lambda text: None)
        load_prompt_decoder(path, checkpoint)
        metadata, tensors = read_weights(path, "threedme-prompt-1")
        weights.append(tensors)
        assert metadata["checkpoint"] == checkpoint.hash
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=0, atol=0)
