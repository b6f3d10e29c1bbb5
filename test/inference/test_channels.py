import numpy as np
import pytest
import torch

from threedme_ros.anatomy import Anatomy, Structure
from threedme_ros.inference.channels import prepare_channels
from threedme_ros.inference.engines import EngineError
from threedme_ros.inference.preprocess import prepare
from threedme_ros.inference.segmenter import Segmenter
from threedme_ros.model.checkpoint import Checkpoint
from threedme_ros.model.config import ModelConfig, Preprocessing
from threedme_ros.model.threedme import ThreeDME
from threedme_ros.volume import Volume, VolumeError

PREPROCESSING = Preprocessing(spacing_mm=(2.0, 2.0, 2.0))
CONFIG = ModelConfig.of_size("small", 2, in_channels=2, channels=(8, 8, 16), vit_dim=24, vit_depth=1, plane_heads=2)


def volumes(count: int = 2) -> list[Volume]:
    rng = np.random.default_rng(0)
    return [Volume(rng.integers(1, 900, (20, 24, 18)), np.diag([-2.0, -2.0, 2.0, 1.0])) for _ in range(count)]


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    torch.manual_seed(0)
    anatomy = Anatomy([Structure(1, "a", (1, 2, 3), 0.0, "context")])
    return Checkpoint(CONFIG, anatomy, PREPROCESSING, ThreeDME(CONFIG).state_dict(), "0" * 16)


def test_each_channel_is_prepared_alone():
    both = volumes()
    prepared = prepare_channels(both, PREPROCESSING, ("other", "other"))
    for channel, volume in zip(prepared.x, both, strict=True):
        np.testing.assert_array_equal(channel, prepare(volume, PREPROCESSING, "other").x)


def test_the_order_of_channels_matters_and_the_grid_is_the_inputs(checkpoint):
    segmenter = Segmenter(checkpoint, engine="torch", modality="other")
    both = volumes()
    found = segmenter.segment(both)
    assert found.labels.grid.matches(both[0].grid)
    assert (found.confidence.voxels != segmenter.segment(both[::-1]).confidence.voxels).any()


def test_tiles_of_several_channels_agree_with_one_pass(checkpoint):
    x = prepare_channels(volumes(), Preprocessing(spacing_mm=(0.5, 0.5, 0.5)), ("other", "other")).x
    whole = Segmenter(checkpoint, engine="torch").predict(x)
    tiles = Segmenter(checkpoint, engine="torch", max_window_voxels=80 * 80 * 80).predict(x)
    assert (whole[0] == tiles[0]).mean() > 0.95


def test_another_grid_is_refused():
    first, second = volumes()
    moved = Volume(second.voxels, second.affine + _shift(5))
    with pytest.raises(VolumeError, match=r"channel 1: .*expected the grid of channel 0"):
        prepare_channels([first, moved], PREPROCESSING, ("other", "other"))


def _shift(mm: float) -> np.ndarray:
    shift = np.zeros((4, 4))
    shift[0, 3] = mm
    return shift


def test_a_missing_channel_is_refused(checkpoint):
    with pytest.raises(VolumeError, match="1 volumes: expected 2"):
        Segmenter(checkpoint, engine="torch").segment(volumes(1)[0])


def test_a_constant_channel_is_named():
    first, second = volumes()
    with pytest.raises(VolumeError, match="channel 1: every voxel is 0"):
        prepare_channels([first, second.with_voxels(np.zeros(second.shape))], PREPROCESSING, ("other", "other"))


def test_only_the_torch_engine_takes_channels(checkpoint):
    with pytest.raises(EngineError, match="2 input channels: only the torch engine"):
        Segmenter(checkpoint, engine="onnxruntime")


def test_modalities_are_counted(checkpoint):
    with pytest.raises(ValueError, match="one for each of 2 channels"):
        Segmenter(checkpoint, engine="torch", modality=("ct",))
