import pytest
import torch
from torch import nn

from threedme_ros.model.encoder import Encoder
from threedme_ros.model.reconstruction import MaskedAutoencoder
from threedme_ros.training.norm_statistics import with_own_statistics, with_unmasked_statistics
from threedme_ros.training.pretrain_exam import fixed_crops


@pytest.fixture
def windows(tiny, volumes):
    return fixed_crops(tiny, volumes, 0.0, count=4)


def first_norm(encoder):
    return next(m for m in encoder.modules() if isinstance(m, nn.BatchNorm3d))


def test_the_statistics_to_fine_tune_from_are_the_mean_over_unmasked_windows(tiny, windows):
    torch.manual_seed(0)
    encoder = Encoder(tiny.model_config())
    first_norm(encoder).running_mean.fill_(77)
    seen = []
    handle = first_norm(encoder).register_forward_pre_hook(lambda module, x: seen.append(x[0].mean((0, 2, 3, 4))))
    with torch.no_grad():
        for number in range(4):
            encoder.eval()(windows[number].image[None])
    handle.remove()
    fitted = with_unmasked_statistics(encoder, windows)
    torch.testing.assert_close(first_norm(fitted).running_mean, torch.stack(seen).mean(0), rtol=1e-4, atol=1e-5)
    assert not fitted.training and not first_norm(fitted).training
    assert first_norm(fitted).momentum == first_norm(encoder).momentum
    assert (first_norm(encoder).running_mean == 77).all()  # a copy was fitted


def test_to_reconstruct_each_window_has_its_own_statistics_and_leaves_no_trace(tiny, windows):
    model = MaskedAutoencoder(tiny.model_config())
    own = with_own_statistics(model)
    before = {name: tensor.clone() for name, tensor in own.named_buffers() if "running" in name}
    crop = windows[0]
    with torch.no_grad():
        restored = own(crop.image[None], crop.mask[None])
        torch.testing.assert_close(restored, model.train()(crop.image[None], crop.mask[None]))
    assert all(torch.equal(dict(own.named_buffers())[name], tensor) for name, tensor in before.items())
