"""The shipped checkpoint on real volumes: trunks are in scope, two patients' heads, noise and air are not."""

import numpy as np
import pytest

from threedme_ros.inference.segmenter import Segmenter
from threedme_ros.model.checkpoint import load_checkpoint
from threedme_ros.samples import SampleError, head_volumes, sample_case
from threedme_ros.share import DEMO_CHECKPOINT, share_path
from threedme_ros.volume import Volume, VolumeError


@pytest.fixture(scope="module")
def segmenter():
    checkpoint = load_checkpoint(share_path(DEMO_CHECKPOINT))
    if checkpoint.scope is None:
        pytest.skip("the shipped checkpoint was trained before there was a scope model: `threedme calibrate` fits one")
    segmenter = Segmenter(checkpoint, engine="torch")
    yield segmenter
    segmenter.close()


@pytest.mark.parametrize("key", "ABCD")
def test_a_real_trunk_is_in_scope(segmenter, samples, key):
    found = segmenter.segment(sample_case(key, samples).image())
    assert found.scope.inside, found.scope
    assert not [w for w in found.warnings if "out of scope" in w]


@pytest.mark.parametrize("number", [0, 1])
def test_a_real_head_is_flagged(segmenter, number):
    try:
        head = head_volumes()[number]
    except SampleError as error:
        pytest.skip(str(error))
    found = segmenter.segment(head)
    assert not found.scope.inside, found.scope
    assert [w for w in found.warnings if "out of scope" in w]


@pytest.mark.parametrize("kind", ["hounsfield", "unsigned", "few"])
def test_noise_is_flagged(segmenter, kind):
    rng = np.random.default_rng(7)
    shape = (96, 80, 24) if kind == "few" else (96, 80, 96)
    voxels = rng.normal(0, 400, shape) if kind == "hounsfield" else rng.integers(0, 256, shape)
    found = segmenter.segment(Volume(voxels.astype(np.float32), np.diag([3.0, 3, 3, 1])))
    assert not found.scope.inside, found.scope


def test_an_empty_room_is_flagged(segmenter):
    voxels = np.random.default_rng(3).normal(-1000, 15, (128, 128, 64))
    voxels[20:108, 40:44] = -100  # the table
    found = segmenter.segment(Volume(voxels.astype(np.int16), np.diag([3.0, 3, 3, 1])))
    assert not found.scope.inside, found.scope


def test_a_water_phantom_is_flagged(segmenter):
    x, y, _ = np.ogrid[-48:48, -48:48, :40]
    voxels = np.where(x**2 + y**2 < 33**2, 0, -1000) + np.random.default_rng(3).normal(0, 8, (96, 96, 40))
    found = segmenter.segment(Volume(voxels.astype(np.int16), np.diag([3.0, 3, 3, 1])))
    assert not found.scope.inside, found.scope


def test_a_constant_volume_is_refused(segmenter):
    with pytest.raises(VolumeError, match="every voxel is 40: expected an image"):
        segmenter.segment(Volume(np.full((64, 64, 64), 40, np.int16), np.diag([3.0, 3, 3, 1])))
