import numpy as np
import pytest
import torch

pytest.importorskip("monai")
from threedme_ros.benchmark.peers import make_peer, peer_runner

MILLIONS = {"SwinUNETR-48": 62.2, "DynUNet": 31.2, "SegResNet-16": 4.7}


@pytest.mark.parametrize("name", MILLIONS)
def test_peers_are_the_networks_they_are_named_after(name: str) -> None:
    model = make_peer(name, 14)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(MILLIONS[name], rel=0.02)


def test_swin_unetr_runs_without_einops_and_keeps_its_shape() -> None:
    with torch.inference_mode():
        assert make_peer("SwinUNETR-48", 3)(torch.zeros(1, 1, 64, 64, 64)).shape == (1, 3, 64, 64, 64)


def test_an_unknown_peer_is_refused() -> None:
    with pytest.raises(ValueError, match="peer 'UNet': expected one of"):
        make_peer("UNet", 14)


def test_a_peer_gives_the_same_logits_in_every_engine() -> None:
    model = make_peer("SegResNet-16", 4)
    x = np.random.default_rng(0).uniform(-1, 1, (1, 1, 16, 16, 16)).astype(np.float32)
    with torch.inference_mode():
        expected = model(torch.from_numpy(x)).numpy()
    for engine in ("torch", "onnxruntime"):
        found = peer_runner(model, engine, "fp32", 1, (16, 16, 16))(x)
        np.testing.assert_allclose(found, expected, atol=2e-4)
