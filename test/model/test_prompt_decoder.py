import math

import numpy as np
import pytest
import torch

from threedme_ros.anatomy import Anatomy, Structure
from threedme_ros.model.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from threedme_ros.model.config import ModelConfig, Preprocessing
from threedme_ros.model.embedding import embed
from threedme_ros.model.prompt_decoder import Clicks, PromptConfig, PromptDecoder, bells, cell_of
from threedme_ros.model.prompt_file import load_prompt_decoder, save_prompt_decoder
from threedme_ros.model.threedme import ThreeDME

CONFIG = ModelConfig("small", 3, channels=(8, 16, 24), vit_dim=24, vit_depth=1)
SPACING_MM = (2.0, 3.0, 4.0)


@pytest.fixture(scope="module")
def model() -> ThreeDME:
    torch.manual_seed(0)
    return ThreeDME(CONFIG).eval()


@pytest.fixture(scope="module")
def embedding(model):
    return embed(model, torch.rand(1, 1, 32, 16, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1)


@pytest.fixture(scope="module")
def decoder() -> PromptDecoder:
    torch.manual_seed(0)
    return PromptDecoder(PromptConfig.of_model(CONFIG)).eval()


def clicks(*rows: tuple[float, float, float, bool]) -> Clicks:
    return Clicks(torch.tensor([r[:3] for r in rows]), torch.tensor([r[3] for r in rows]), SPACING_MM)


def test_a_bell_is_one_at_the_click_and_falls_with_millimetres_along_each_axis():
    # the centre of cell (1, 2, 3) at stride 2 lies at voxel (2.5, 4.5, 6.5)
    near, wide = bells(clicks((2.5, 4.5, 6.5, True)), True, (4, 5, 6), 2, (5.0, 20.0))
    assert near[1, 2, 3] == wide[1, 2, 3] == 1
    for axis, at in enumerate([(2, 2, 3), (1, 3, 3), (1, 2, 4)]):
        step_mm = 2 * SPACING_MM[axis]
        assert near[at] == pytest.approx(math.exp(-(step_mm**2) / 50))
        assert wide[at] == pytest.approx(math.exp(-(step_mm**2) / 800))


def test_a_bell_counts_the_nearest_click_and_is_zero_without_one():
    two = clicks((2.5, 4.5, 6.5, True), (6.5, 4.5, 6.5, True))
    near = bells(two, True, (4, 5, 6), 2, (5.0,))[0]
    assert near[1, 2, 3] == near[3, 2, 3] == 1
    assert near[2, 2, 3] == pytest.approx(math.exp(-(4.0**2) / 50))
    assert not bells(two, False, (4, 5, 6), 2, (5.0,)).any()


@pytest.mark.parametrize(
    ("voxel", "cell"), [((0, 1.49, 3), (0, 0, 0)), ((3.5, 3.6, 99), (1, 1, 4)), ((-1, 0, 0), (0,) * 3)]
)
def test_a_voxel_lies_in_the_cell_that_covers_it_or_the_nearest_one(voxel, cell):
    assert cell_of(torch.tensor(voxel, dtype=torch.float32), 4, (5, 5, 5)) == cell


def test_likeness_is_the_softmax_of_the_class_in_every_sub_voxel(model, embedding):
    x = torch.rand(1, 1, 32, 16, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        probability = torch.softmax(model.half_logits(x), 1)
    torch.testing.assert_close(embedding.likeness(torch.tensor([0.0, 0.0, 1.0])), probability[:, 2])
    mixed = 0.25 * probability[:, 0] + 0.75 * probability[:, 1]
    torch.testing.assert_close(embedding.likeness(torch.tensor([0.25, 0.75, 0.0])), mixed)
    torch.testing.assert_close(embedding.class_probabilities((3, 2, 1)), probability[0, :, :, 3, 2, 1].mean(1))


def test_the_order_of_clicks_does_not_matter_and_the_output_has_every_voxel(decoder, embedding):
    rows = (3.0, 4.0, 5.0, True), (20.0, 8.0, 30.0, True), (9.0, 9.0, 9.0, False)
    projected = decoder.project(embedding)
    with torch.no_grad():
        logits = decoder(projected, clicks(*rows))
        assert logits.shape == (1, 1, 32, 16, 48)
        torch.testing.assert_close(decoder(projected, clicks(*rows[::-1])), logits)
        assert not torch.allclose(decoder(projected, clicks(*rows[:2])), logits)


def test_clicks_without_a_foreground_one_or_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="none in the foreground"):
        clicks((1.0, 2.0, 3.0, False))
    with pytest.raises(ValueError, match=r"\(3,\)"):
        Clicks(torch.zeros(3), torch.ones(1, dtype=torch.bool), SPACING_MM)


@pytest.mark.parametrize("changes", [{"key": 0}, {"channels": ()}, {"sigmas_mm": (5.0, -1.0)}])
def test_a_config_of_nothing_is_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        PromptConfig(**{"channels": (8, 16, 24), **changes})


def test_the_file_gives_the_same_decoder_for_its_checkpoint_and_no_other(tmp_path, model, decoder, embedding):
    anatomy = Anatomy([Structure(i, f"organ{i}", (1, 2, 3), 0.0, "context") for i in (1, 2)])
    save_checkpoint(tmp_path / "a.safetensors", model, anatomy, Preprocessing(), {})
    save_checkpoint(tmp_path / "b.safetensors", model, anatomy, Preprocessing(), {"another": "run"})
    checkpoint, other = load_checkpoint(tmp_path / "a.safetensors"), load_checkpoint(tmp_path / "b.safetensors")
    path = tmp_path / "prompt.safetensors"
    save_prompt_decoder(path, decoder, checkpoint.hash, {"steps": 3})
    loaded = load_prompt_decoder(path, checkpoint)
    click = clicks((3.0, 4.0, 5.0, True))
    with torch.no_grad():
        np.testing.assert_allclose(
            loaded(loaded.project(embedding), click), decoder(decoder.project(embedding), click), atol=1e-5
        )
    with pytest.raises(CheckpointError, match=f"{checkpoint.hash}, this one is {other.hash}"):
        load_prompt_decoder(path, other)
    with pytest.raises(CheckpointError, match="expected 'threedme-prompt-1'"):
        load_prompt_decoder(tmp_path / "a.safetensors", checkpoint)


@pytest.mark.parametrize(
    "changes",
    [
        {"channels": (8, 16)},
        {"channels": (8, 16, 10**6)},
        {"key": 0},
        {"hidden2": 2.0},
        {"hidden4": 10**6},
        {"sigmas_mm": ()},
        {"sigmas_mm": (float("nan"),)},
        {"sigmas_mm": (10**400,)},
        {"sigmas_mm": (float("inf"),)},
        {"sigmas_mm": (1.0,) * 17},
    ],
)
def test_sizes_no_decoder_of_ours_has_are_refused_before_memory_is_taken(changes):
    with pytest.raises(ValueError, match=f"{next(iter(changes))} .*expected"):
        PromptConfig(**{"channels": (8, 16, 24)} | changes)
