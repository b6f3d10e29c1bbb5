import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion

from threedme_ros.anatomy import Anatomy, Structure
from threedme_ros.inference.prototypes import PrototypeError, PrototypeSegmenter, cell_labels, spherical_means
from threedme_ros.model.checkpoint import load_checkpoint, save_checkpoint
from threedme_ros.model.config import ModelConfig, Preprocessing
from threedme_ros.model.threedme import ThreeDME
from threedme_ros.volume import Volume

CONFIG = ModelConfig("small", 3, channels=(8, 16, 24), vit_dim=24, vit_depth=1)


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory) -> PrototypeSegmenter:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("models") / "random.safetensors"
    anatomy = Anatomy([Structure(i, f"organ{i}", (1, 2, 3), 0.0, "context") for i in (1, 2)])
    save_checkpoint(path, ThreeDME(CONFIG), anatomy, Preprocessing(spacing_mm=(4.0, 4.0, 4.0)), {})
    return PrototypeSegmenter(load_checkpoint(path))


def scene(shift: int) -> tuple[Volume, Volume]:
    """Two blocks of their own intensity in soft tissue, off the middle; the second scene has them elsewhere."""
    image, labels = np.full((48, 44, 40), 40, np.int16), np.zeros((48, 44, 40), np.uint8)
    image[0], labels[0] = -1000, 0  # air: this is a CT
    for label, (value, start) in enumerate([(250, 6), (-120, 28)], 1):
        box = np.s_[start : start + 14, 8 + shift : 26 + shift, 12:30]
        image[box], labels[box] = value, label
    affine = np.diag([-4.0, 4.0, 4.0, 1.0])
    return Volume(image, affine), Volume(labels, affine)


def test_one_example_segments_another_volume_without_a_gradient_step(segmenter):
    image, labels = scene(0)
    prototypes = segmenter.learn(image, labels)
    assert sorted(set(prototypes.labels.tolist())) == [0, 1, 2]
    torch.testing.assert_close(prototypes.vectors.norm(dim=1), torch.ones(len(prototypes.vectors)))
    other, truth = scene(8)
    turned, _ = other.reoriented("SAR")
    found = segmenter.segment(turned, prototypes)
    assert (found.labels.shape, found.labels.voxels.dtype) == (turned.shape, np.uint8)
    np.testing.assert_array_equal(found.labels.affine, turned.affine)
    back, _ = found.labels.reoriented("LAS")
    for label in (1, 2):
        p, t = back.voxels == label, truth.voxels == label
        assert 2 * (p & t).sum() / (p.sum() + t.sum()) > 0.4  # random features see a halo around each block
        assert p[binary_erosion(t, iterations=3)].mean() > 0.8


def test_labels_of_another_grid_or_without_a_structure_are_refused(segmenter):
    image, labels = scene(0)
    with pytest.raises(PrototypeError, match="expected the image's grid"):
        segmenter.learn(image, Volume(labels.voxels[1:], labels.affine))
    with pytest.raises(PrototypeError, match="expected at least one"):
        segmenter.learn(image, labels.with_voxels(np.zeros_like(labels.voxels)))


def test_spherical_means_find_the_clusters():
    generator = torch.Generator().manual_seed(0)
    axes = torch.eye(4)[[0, 2, 3]]
    vectors = torch.nn.functional.normalize(
        axes.repeat_interleave(50, 0) + 0.05 * torch.randn(150, 4, generator=generator), dim=1
    )
    centres = spherical_means(vectors, 3)
    torch.testing.assert_close((centres @ axes.T).amax(0), torch.ones(3), atol=1e-3, rtol=0)
    assert len(spherical_means(vectors[:2], 8)) <= 2


def test_a_cell_takes_the_label_that_fills_it_and_padding_none():
    labels = torch.zeros(4, 4, 4, dtype=torch.int64)
    labels[:2, :2, :2] = 1
    labels[2:, :2, :1] = 2  # half of a cell is enough
    labels[2, 2, 2] = 3  # an eighth is not
    cells = cell_labels(labels, (4, 4, 4))
    assert cells.shape == (8, 8, 8)
    assert cells[0, 0, 0] == 1
    assert cells[1, 0, 0] == 2
    assert cells[1, 1, 1] == 0
    assert (cells[2:] == -1).all()
