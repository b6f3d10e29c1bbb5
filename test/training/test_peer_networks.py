"""Peers take the windows ours takes: padded with air to their stride, the result cut back."""

import pytest
import torch

pytest.importorskip("monai")
from threedme_ros.training.augment import PADDING
from threedme_ros.training.peer_networks import PEERS, PeerConfig, PeerNetwork

MILLIONS = {"dynunet": 31.2, "swinunetr": 15.7, "segresnet": 4.7}


@pytest.mark.parametrize("name", PEERS)
def test_peers_are_the_networks_they_are_named_after(name):
    model = PeerNetwork(PeerConfig(name, 14))
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(MILLIONS[name], rel=0.02)


@pytest.mark.parametrize("name", PEERS)
def test_a_window_that_is_no_multiple_of_the_stride_is_padded_with_air_and_cut_back(name):
    torch.manual_seed(0)
    model = PeerNetwork(PeerConfig(name, 3)).eval()
    x = torch.rand(1, 1, 16, 48, 64) * 2 - 1
    padded = torch.full((1, 1, 32, 64, 64), PADDING)
    padded[:, :, :16, :48] = x
    if name == "segresnet":  # its stride is 8: nothing to pad
        padded = x
    with torch.inference_mode():
        assert torch.equal(model(x), model.network(padded)[:, :, :16, :48])


def test_labels_are_the_likeliest_class_and_confidence_its_softmax():
    torch.manual_seed(0)
    model = PeerNetwork(PeerConfig("segresnet", 4)).eval()
    x = torch.rand(1, 1, 16, 16, 16)
    with torch.inference_mode():
        labels, confidence = model.predict(x)
        probability, likeliest = model(x).softmax(1).max(1)
    assert torch.equal(labels, likeliest)
    torch.testing.assert_close(confidence, probability)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("unet", 4), "peer 'unet': expected one of"),
        (("dynunet", 1), "num_classes 1: expected 2 to 256"),
        (("dynunet", 4, 2), "in_channels 2: expected 1"),
    ],
)
def test_a_bad_config_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        PeerConfig(*arguments)
