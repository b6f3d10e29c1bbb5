"""The shipped checkpoint on a real CT over DDS: the right organ on the right side, in metres, however it is stored."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
from perceiving import Perceiving, points_of, xyz

from threedme_ros.nodes.messages import volume_from_message
from threedme_ros.samples import sample_case
from threedme_ros.share import DEMO_CHECKPOINT, share_path
from threedme_ros.volume import Volume, resample

TOLERANCE_M = 0.015


def shipped_checkpoint() -> Path | None:
    try:
        return share_path(DEMO_CHECKPOINT)
    except FileNotFoundError:
        return None


pytestmark = pytest.mark.skipif(shipped_checkpoint() is None, reason=f"{DEMO_CHECKPOINT} is not trained yet")


@pytest.fixture(scope="module")
def patient(samples, anatomy) -> tuple[Volume, dict[str, np.ndarray]]:
    """Patient B (upper abdomen) at every other pixel, and where liver and spleen are by its reference labels, m."""
    case = sample_case("B", samples)
    image = case.image()
    smaller = resample(image, image.grid.scaled((256, 256, image.shape[2])))
    smaller = Volume(smaller.voxels.astype(np.int16), smaller.affine.astype(np.float32), "ct")
    labels = case.labels(anatomy)
    where = {
        name: labels.grid.to_mm(np.argwhere(labels.voxels == anatomy[name].id)).mean(0) / 1000
        for name in ("liver", "spleen", "vertebrae")
    }
    return smaller, where


@pytest.fixture(scope="module")
def node(domain) -> Perceiving:
    node = Perceiving(domain, domain.start("perception", engine="torch", max_faces=400), "/perception")
    node.wait_for_subscription()
    return node


def swapped(volume: Volume) -> Volume:
    """Axes swapped and one flipped by hand, without `Volume.reoriented`."""
    to_old = np.array([[0, 0, 1, 0], [0, -1, 0, volume.shape[1] - 1], [1, 0, 0, 0], [0, 0, 0, 1]], float)
    return Volume(volume.voxels[:, ::-1].transpose(2, 1, 0), volume.affine @ to_old, volume.frame_id)


@pytest.mark.parametrize(
    ("stored", "format"),
    [
        (lambda v: v.reoriented("RAS")[0], "nifti"),
        (lambda v: v.reoriented("LPS")[0], "nifti"),
        (lambda v: v.reoriented("LAS")[0], "nifti; gzip"),
        (swapped, "nifti"),
        (lambda v: v, "nrrd"),
    ],
    ids=["RAS", "LPS", "flipped", "swapped", "NRRD"],
)
def test_liver_is_right_and_spleen_left(node, patient, anatomy, stored, format):
    volume, where = patient
    node.segment(stored(volume), format)
    labels = volume_from_message(node.last("labels"))
    points = points_of(node.last("anatomy/points"))
    for name, side in (("liver", 1), ("spleen", -1)):
        voxels_m = labels.grid.to_mm(np.argwhere(labels.voxels == anatomy[name].id)) / 1000
        surface_m = xyz(points[points["label"] == anatomy[name].id])
        assert len(voxels_m) and len(surface_m), f"no {name}"
        for centroid in (voxels_m.mean(0), surface_m.mean(0)):
            assert side * (centroid[0] - where["vertebrae"][0]) > 0.02
        np.testing.assert_allclose(voxels_m.mean(0), where[name], atol=TOLERANCE_M)
        np.testing.assert_allclose(surface_m.mean(0), where[name], atol=2 * TOLERANCE_M)
