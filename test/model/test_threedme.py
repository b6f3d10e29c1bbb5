import pytest
import torch

from threedme_ros.model.config import SIZES, ModelConfig
from threedme_ros.model.threedme import ThreeDME


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return ThreeDME(ModelConfig.of_size("small", 5)).eval()


@pytest.mark.parametrize("size", sorted(SIZES))
def test_every_size_maps_a_window_to_logits_and_trains_every_parameter(size):
    model = ThreeDME(ModelConfig.of_size(size, 3))
    logits = model(torch.randn(1, 1, 32, 16, 48))
    assert logits.shape == (1, 3, 32, 16, 48)
    logits.square().mean().backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None]
    assert idle == []


def test_predict_is_the_argmax_and_softmax_of_forward(small):
    x = torch.randn(1, 1, 32, 32, 16)
    with torch.inference_mode():
        best, labels = small(x).softmax(1).max(1)
        predicted, confidence = small.predict(x)
    assert torch.equal(predicted, labels)
    torch.testing.assert_close(confidence, best)


def test_samples_of_a_batch_do_not_mix(small):
    x = torch.randn(2, 1, 16, 32, 16)
    with torch.inference_mode():
        torch.testing.assert_close(small(x)[1:], small(x[1:]), rtol=0, atol=1e-5)


def test_several_input_channels():
    model = ThreeDME(ModelConfig.of_size("small", 4, in_channels=4)).eval()
    assert model(torch.randn(1, 4, 16, 16, 16)).shape == (1, 4, 16, 16, 16)


def test_a_shape_off_the_stride_is_refused(small):
    with pytest.raises(ValueError, match=r"\(1, 1, 16, 20, 16\): expected D, H, W to be multiples of 16"):
        small(torch.zeros(1, 1, 16, 20, 16))
