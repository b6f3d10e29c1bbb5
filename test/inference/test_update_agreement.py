"""The shipped checkpoint on a real patient: labels after an update against those of a full pass."""

import pytest

from threedme_ros.inference.incremental import IncrementalSegmenter, UpdatePolicy
from threedme_ros.inference.segmenter import Segmenter
from threedme_ros.intraoperative import resect
from threedme_ros.model.checkpoint import load_checkpoint
from threedme_ros.samples import sample_case
from threedme_ros.share import DEMO_CHECKPOINT, share_path

RADIUS_MM = 8.0


@pytest.fixture(scope="module")
def segmenter():
    try:
        path = share_path(DEMO_CHECKPOINT)
    except FileNotFoundError:
        pytest.skip("no shipped checkpoint")
    return Segmenter(load_checkpoint(path), engine="torch", precision="fp32")


def test_an_update_gives_the_labels_of_a_full_pass(segmenter, samples) -> None:
    image = sample_case("A", samples).image()
    # a window of 80 is a third of this patient: taken here all the same, to see what it does
    incremental = IncrementalSegmenter(segmenter, UpdatePolicy(most=1.0, full_every=0))
    before = incremental.segment(image)
    shares = []
    for seed in range(3):
        changed = resect(image, RADIUS_MM, seed)
        update, full = incremental.segment(changed), segmenter.segment(changed)
        assert update.update == "incremental"
        assert (full.labels.voxels != before.labels.voxels).any()
        shares.append(float((update.labels.voxels == full.labels.voxels).mean()))
        incremental.forget()
        incremental.segment(image)
    assert min(shares) >= 0.999, shares
