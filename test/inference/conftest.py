from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from threedme_ros.model.config import ModelConfig, Preprocessing


class Thresholds(nn.Module):
    """A network that looks at one voxel at a time: 0, 1 or 2 by intensity."""

    def predict(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x[:, 0]
        return (x > 0).long() + (x > 0.5).long(), 0.5 + 0.5 * x.abs()


@pytest.fixture
def thresholds() -> SimpleNamespace:
    """What a Segmenter needs of a checkpoint, with the `Thresholds` network at 2 mm."""
    preprocessing = Preprocessing(spacing_mm=(2.0, 2.0, 2.0), ct_window_hu=(-200.0, 200.0))
    return SimpleNamespace(
        build=Thresholds, config=ModelConfig("small", 3), preprocessing=preprocessing, hash="0" * 16, provenance={}
    )


@pytest.fixture(autouse=True)
def _private_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
