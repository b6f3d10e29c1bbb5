import pytest
import torch

from threedme_ros.model.config import ModelConfig
from threedme_ros.model.reconstruction import MaskedAutoencoder, enlarge
from threedme_ros.model.threedme import ThreeDME

TINY = {"channels": (8, 12, 16), "vit_dim": 24, "vit_depth": 1, "vit_heads": 2, "plane_heads": 2, "knn": 4}


@pytest.fixture(scope="module", params=[8, 16], ids=["token8", "token16"])
def model(request):
    torch.manual_seed(1)
    model = MaskedAutoencoder(ModelConfig.of_size("small", 2, token_size=request.param, **TINY))
    with torch.no_grad():
        for parameter in model.parameters():  # the offsets and weights of plane attention start at zero
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return model


@pytest.fixture(scope="module")
def mask(model):
    shape = [n // model.config.token_size for n in (32, 48, 32)]
    return torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)) < 0.5


def volume(seed=0):
    return torch.rand(1, 1, 32, 48, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_what_lies_under_the_mask_changes_no_feature_and_no_voxel_of_the_output(model, mask):
    x = volume()
    hidden = enlarge(mask, model.config.token_size)
    other = torch.where(hidden, volume(9) * 1000, x)
    with torch.inference_mode():
        for a, b in zip(model.encode(x, mask), model.encode(other, mask), strict=True):
            assert torch.equal(a, b)
        assert torch.equal(model(x, mask), model(other, mask))


def test_no_gradient_reaches_a_hidden_voxel_and_some_reaches_every_visible_token(model, mask):
    x = volume().requires_grad_()
    model(x, mask).square().sum().backward()
    hidden = enlarge(mask, model.config.token_size)
    assert (x.grad[hidden] == 0).all()
    seen = x.grad.abs()[~hidden]
    assert (seen > 0).float().mean() > 0.99


def test_both_branches_answer_for_a_hidden_token(model, mask):
    """The loss on hidden voxels trains every weight of the ViT, of the graph and of what joins them."""
    model.zero_grad()
    hidden = enlarge(mask, model.config.token_size)
    model(volume(), mask)[hidden].square().sum().backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == []


def test_a_visible_constant_is_not_a_hidden_place(model, mask):
    """The marks tell anatomy of the fill's value from what is hidden."""
    constant = torch.full((1, 1, 32, 48, 32), model.fill.item())
    with torch.inference_mode():
        masked, seen = model.encode(constant, mask), model.encode(constant, torch.zeros_like(mask))
    assert torch.equal(masked.level2, seen.level2)
    assert not torch.equal(masked.level4, seen.level4)  # the graph branch
    assert not torch.equal(masked.tokens, seen.tokens)  # the ViT branch


def test_with_nothing_hidden_the_encoder_is_the_one_that_is_fine_tuned(model):
    network = ThreeDME(model.config)
    network.encoder.load_state_dict(model.encoder.state_dict())
    nothing = torch.zeros(1, *[n // model.config.token_size for n in (32, 48, 32)], dtype=torch.bool)
    with torch.inference_mode():
        for a, b in zip(model.encode(volume(), nothing), network.encoder(volume()), strict=True):
            assert torch.equal(a, b)


def test_a_mask_on_another_grid_is_refused(model):
    with pytest.raises(ValueError, match=r"mask torch.bool \(1, 2, 2, 2\): expected torch.bool"):
        model(volume(), torch.zeros(1, 2, 2, 2, dtype=torch.bool))
