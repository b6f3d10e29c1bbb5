import numpy as np
import pytest
import torch

from threedme_ros.anatomy import Anatomy, Structure
from threedme_ros.inference.prompts import PromptError, PromptSegmenter, clicked_parts
from threedme_ros.model.checkpoint import load_checkpoint, save_checkpoint
from threedme_ros.model.config import ModelConfig, Preprocessing
from threedme_ros.model.prompt_decoder import PromptConfig, PromptDecoder
from threedme_ros.model.threedme import ThreeDME
from threedme_ros.phantom import phantom
from threedme_ros.volume import Volume, VolumeError

CONFIG = ModelConfig("small", 3, channels=(8, 16, 24), vit_dim=24, vit_depth=1)
YES, NO = True, False


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory) -> PromptSegmenter:
    """Random weights at 8 mm; the encoder counts its calls."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("models") / "random.safetensors"
    anatomy = Anatomy([Structure(i, f"organ{i}", (1, 2, 3), 0.0, "context") for i in (1, 2)])
    model = ThreeDME(CONFIG)
    torch.nn.init.zeros_(model.decoder.head.bias)  # it starts biased towards background
    torch.nn.init.normal_(model.decoder.head.weight, std=3.0)
    save_checkpoint(path, model, anatomy, Preprocessing(spacing_mm=(8.0, 8.0, 8.0)), {})
    decoder = PromptDecoder(PromptConfig.of_model(CONFIG))
    torch.nn.init.constant_(decoder.head.bias, -1.0)  # untrained, it would find nothing: now about half of the volume
    segmenter = PromptSegmenter(load_checkpoint(path), decoder)
    segmenter.encodings = 0

    def count(*_):
        segmenter.encodings += 1

    segmenter._model.encoder.register_forward_hook(count)
    return segmenter


@pytest.fixture(scope="module")
def image() -> Volume:
    """Oblique and anisotropic."""
    image = phantom((40, 32, 44), (7.0, 8.5, 6.0))[0]
    tilt = np.eye(4)
    tilt[:2, :2] = [[np.cos(0.1), -np.sin(0.1)], [np.sin(0.1), np.cos(0.1)]]
    tilt[:3, 3] = (11.5, -7.25, 300.0)
    return Volume(image.voxels, tilt @ image.affine, "patient")


def at(volume: Volume, *indices: tuple[float, float, float]) -> np.ndarray:
    return volume.grid.to_mm(np.array(indices, np.float64))


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SAR", "PIL"])
def test_the_mask_lies_on_exactly_the_input_grid_and_is_the_same_in_any_storage_order(segmenter, image, codes):
    points = at(image, (18, 15, 20), (5, 6, 7))
    segmenter.set_volume(image)
    expected = segmenter.click(points, np.array([YES, NO])).mask.voxels
    turned, step = image.reoriented(codes)
    segmenter.set_volume(turned)
    found = segmenter.click(points, np.array([YES, NO]))
    for result in (found.mask, found.confidence):
        assert (result.shape, result.voxels.dtype, result.frame_id) == (turned.shape, np.uint8, "patient")
        np.testing.assert_array_equal(result.affine, turned.affine)
    assert set(np.unique(found.mask.voxels)) == {0, 1}
    np.testing.assert_array_equal(step.invert(found.mask.voxels), expected)


def test_refining_reuses_the_encoding_and_a_new_volume_is_encoded_once(segmenter, image):
    before = segmenter.encodings
    segmenter.set_volume(image)
    first = segmenter.click(at(image, (18, 15, 20)), np.array([YES]))
    second = segmenter.click(at(image, (18, 15, 20), (10, 10, 10)), np.array([YES, NO]))
    assert segmenter.encodings == before + 1
    assert not np.array_equal(first.confidence.voxels, second.confidence.voxels)
    again = segmenter.click(at(image, (18, 15, 20)), np.array([YES]))
    np.testing.assert_array_equal(again.mask.voxels, first.mask.voxels)


def test_clicks_that_mean_nothing_are_refused_and_harm_nothing(segmenter, image):
    segmenter.set_volume(image)
    centre = at(image, (18, 15, 20))
    for points, foreground, words in (
        (at(image, (40.6, 15, 20)), [YES], r"click at \(.*\) mm: expected a point inside"),
        (centre, [NO], "none in the foreground"),
        (centre * np.nan, [YES], "expected finite mm"),
        (centre[0], [YES], r"expected \(N, 3\)"),
    ):
        with pytest.raises(PromptError, match=words):
            segmenter.click(points, np.array(foreground))
    assert segmenter.inside(at(image, (39.4, 15, 20), (39.6, 15, 20))).tolist() == [True, False]
    assert segmenter.click(centre, np.array([YES])).mask.shape == image.shape


def test_a_volume_that_cannot_be_seen_leaves_the_one_before_and_clearing_forgets_it(segmenter, image):
    segmenter.set_volume(image)
    with pytest.raises(VolumeError, match="expected an image"):
        segmenter.set_volume(image.with_voxels(np.zeros(image.shape, np.int16)))
    assert segmenter.volume is image
    segmenter.clear()
    with pytest.raises(PromptError, match="no volume yet"):
        segmenter.click(at(image, (18, 15, 20)), np.array([YES]))


def test_of_the_mask_only_the_clicked_parts_stay():
    mask = np.zeros((4, 4, 9), bool)
    mask[1:3, 1:3, :3], mask[1:3, 1:3, 6:] = True, True
    kept = clicked_parts(mask, np.array([[1.4, 2.0, 0.0]]))
    assert kept[:, :, :3].sum() == 12
    assert not kept[:, :, 3:].any()
    np.testing.assert_array_equal(clicked_parts(mask, np.array([[0.0, 0.0, 4.0]])), mask)


def test_a_correction_changes_the_mask_around_itself_only_and_costs_one_run_of_the_decoder(segmenter, image):
    segmenter.set_volume(image)
    runs = []
    handle = segmenter._decoder.register_forward_hook(lambda *_: runs.append(1))
    points = at(image, (18, 15, 20), (4, 4, 4))
    first = segmenter.click(points[:1], np.array([YES]))
    segmenter.click(points, np.array([YES, NO]))
    assert len(runs) == 2
    far = np.linalg.norm(image.grid.to_mm(np.argwhere(np.ones(image.shape))) - points[1], axis=1) > 150
    found = segmenter.click(points, np.array([YES, NO]))
    assert len(runs) == 2
    handle.remove()
    before, after = (r.confidence.voxels.reshape(-1)[far].astype(int) for r in (first, found))
    assert np.abs(before - after).max() <= 1
    assert not np.array_equal(first.confidence.voxels, found.confidence.voxels)
