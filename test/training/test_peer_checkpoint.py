"""A trained peer in a file: what comes back is what was written, and the `Segmenter` runs it like ours."""

import numpy as np
import pytest
import torch

pytest.importorskip("monai")
from threedme_ros.inference.engines.torch_engine import TorchEngine
from threedme_ros.inference.segmenter import Segmenter
from threedme_ros.model.checkpoint import CheckpointError, load_checkpoint
from threedme_ros.model.config import Preprocessing
from threedme_ros.model.weights_file import read_weights, write_weights
from threedme_ros.phantom import phantom
from threedme_ros.training.networks import build_network, load_network, save_network
from threedme_ros.training.peer_checkpoint import load_peer
from threedme_ros.training.peer_networks import PeerNetwork

PREPROCESSING = Preprocessing(spacing_mm=(6.0, 6.0, 6.0))


@pytest.fixture(scope="module")
def saved(anatomy, tmp_path_factory):
    torch.manual_seed(0)
    model = build_network("segresnet", anatomy.num_classes)
    path = tmp_path_factory.mktemp("peer") / "peer.safetensors"
    save_network(path, model, anatomy, PREPROCESSING, {"steps": 3})
    return model, path


def test_it_comes_back_with_its_config_and_its_weights_in_half_precision(saved, anatomy):
    model, path = saved
    checkpoint = load_network(path)
    assert checkpoint.config == model.config and checkpoint.preprocessing == PREPROCESSING
    assert checkpoint.provenance == {"steps": 3} and checkpoint.anatomy.to_json() == anatomy.to_json()
    built = checkpoint.build()
    assert isinstance(built, PeerNetwork)
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(built.state_dict()[name], weight, atol=1e-3, rtol=1e-3)


def test_neither_kind_is_taken_for_the_other(saved, anatomy, tmp_path):
    with pytest.raises(CheckpointError, match="format 'threedme-peer-1'"):
        load_checkpoint(saved[1])
    ours = build_network("small", anatomy.num_classes)
    save_network(tmp_path / "ours.safetensors", ours, anatomy, PREPROCESSING, {})
    assert load_network(tmp_path / "ours.safetensors").config.size == "small"
    with pytest.raises(CheckpointError, match="format 'threedme-1'"):
        load_peer(tmp_path / "ours.safetensors")


def test_metadata_nested_past_the_stack_is_refused(saved, tmp_path):
    metadata, weights = read_weights(saved[1], "threedme-peer-1")
    metadata = {key: text for key, text in metadata.items() if key != "hash"} | {"config": "[" * 5000}
    write_weights(tmp_path / "deep.safetensors", metadata, weights, torch.float16)
    with pytest.raises(CheckpointError, match="metadata does not fit"):
        load_peer(tmp_path / "deep.safetensors")


def test_the_segmenter_gives_its_labels_on_the_input_grid(saved, anatomy):
    checkpoint = load_network(saved[1])
    volume, _ = phantom((60, 48, 40), (6.0, 6.0, 6.0), anatomy=anatomy)
    model = checkpoint.build()
    segmenter = Segmenter(checkpoint, engine=TorchEngine(model), body_crop=False)
    found = segmenter.segment(volume)
    assert found.labels.grid.matches(volume.grid) and found.labels.voxels.dtype == np.uint8
    from threedme_ros.inference.preprocess import prepare

    x = torch.from_numpy(prepare(volume, PREPROCESSING).x)[None, None]
    pad = [p for n in reversed(x.shape[2:]) for p in (0, -n % 16)]
    with torch.inference_mode():
        expected, _ = model.predict(torch.nn.functional.pad(x, pad, value=-1.0))
    d, h, w = x.shape[2:]
    agreement = (expected[0, :d, :h, :w].numpy() == found.labels.voxels.T).mean()
    assert agreement > 0.999
