from itertools import permutations, product

import numpy as np
import pytest
import torch

from threedme_ros.inference import segmenter as segmenter_module
from threedme_ros.inference.engines import EngineError
from threedme_ros.inference.segmenter import Segmenter, default_window_voxels
from threedme_ros.model.config import ModelConfig
from threedme_ros.volume import Volume, VolumeError

ORIENTATIONS = ["".join(axes) for p in permutations(("LR", "PA", "IS")) for axes in product(*p)]


def ct(shape=(70, 60, 50), spacing_mm=(2.0, 2.0, 2.0)) -> Volume:
    """Air, with a box on the patient's right, low at the front, in mid grey, and a brighter core in it."""
    voxels = np.full(shape, -1000, np.int16)
    i, j, k = shape
    voxels[i // 2 : i - 10, j // 2 : j - 8, 5 : k // 2] = 60
    voxels[i // 2 + 6 : i - 20, j // 2 + 5 : j - 14, 9 : k // 2 - 5] = 150
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = (-70, -50, 900)
    return Volume(voxels, affine, "patient")


class Fake:
    """An engine that records its windows."""

    name, precision, device = "fake", "fp32", "cpu"

    def __init__(self, confidence: float = 1.0) -> None:
        self.confidence, self.shapes, self.closed = confidence, [], 0

    def run(self, window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.shapes.append(window.shape)
        assert window.flags.c_contiguous
        return (window > 0).astype(np.uint8), np.full(window.shape, self.confidence, np.float32)

    def close(self) -> None:
        self.closed += 1


def test_labels_and_confidence_lie_on_exactly_the_inputs_grid(thresholds) -> None:
    volume = ct()
    result = Segmenter(thresholds, engine="torch").segment(volume)
    for part in (result.labels, result.confidence):
        assert part.voxels.dtype == np.uint8
        np.testing.assert_array_equal(part.affine, volume.affine)
        assert (part.shape, part.frame_id) == (volume.shape, "patient")
    expected = (volume.voxels > 0).astype(np.uint8) + (volume.voxels > 100)
    np.testing.assert_array_equal(result.labels.voxels, expected)
    assert set(np.unique(result.confidence.voxels)) == {255, 166, 223}  # |-1|, |0.3| and |0.75|, halved plus a half
    assert result.warnings == ()
    assert list(result.timings_s) == ["preprocess", "network", "restore", "total"]
    stages = [result.timings_s[name] for name in ("preprocess", "network", "restore")]
    assert min(stages) > 0
    assert sum(stages) == pytest.approx(result.timings_s["total"])


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_every_orientation_of_a_ct_has_the_same_labels_in_space(thresholds, codes: str) -> None:
    volume = ct(spacing_mm=(1.0, 1.5, 3.0))
    turned, _ = volume.reoriented(codes)
    segmenter = Segmenter(thresholds, engine="torch")
    expected, labels = segmenter.segment(volume).labels, segmenter.segment(turned).labels
    back, _ = labels.reoriented("RAS")
    np.testing.assert_array_equal(back.voxels, expected.voxels)
    np.testing.assert_allclose(back.affine, volume.affine, atol=1e-9)
    assert set(np.unique(expected.voxels)) == {0, 1, 2}


def test_tiles_equal_the_whole_volume_for_a_network_that_looks_at_one_voxel(thresholds) -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (90, 70, 110)).astype(np.float32)
    whole = Segmenter(thresholds, engine="torch").predict(x)
    tiled = Segmenter(thresholds, engine="torch", max_window_voxels=64**3).predict(x)
    for a, b in zip(whole, tiled, strict=True):
        np.testing.assert_array_equal(a, b)


def test_tiles_equal_the_whole_volume_for_a_network_that_looks_no_further_than_the_halo(thresholds) -> None:
    class Distant(torch.nn.Module):
        def predict(self, x):
            d, h, w = x.shape[2:]
            around = torch.nn.functional.pad(x, [16] * 6)[:, 0]
            labels = (x[:, 0] > around[:, :d, :h, 32:]).long() + (x[:, 0] > around[:, 32:, :h, :w]).long()
            return labels, torch.ones_like(x[:, 0])

    thresholds.build = Distant
    x = np.random.default_rng(0).uniform(-1, 1, (96, 48, 160)).astype(np.float32)
    whole, _ = Segmenter(thresholds, engine="torch").predict(x)
    tiled, _ = Segmenter(thresholds, engine="torch", max_window_voxels=64 * 48 * 64).predict(x)
    np.testing.assert_array_equal(whole, tiled)


def test_a_volume_that_fits_is_one_window_and_tiles_share_a_shape(thresholds) -> None:
    engine = Fake()
    Segmenter(thresholds, engine=engine, body_crop=False).segment(ct())
    assert engine.shapes == [(64, 64, 80)]
    engine = Fake()
    Segmenter(thresholds, engine=engine, max_window_voxels=64**3, body_crop=False).segment(ct())
    assert len(engine.shapes) > 1
    assert len(set(engine.shapes)) == 1


def test_air_around_the_body_is_not_computed_and_is_background_for_certain(thresholds) -> None:
    volume = ct()
    cropped = Segmenter(thresholds, engine="torch").segment(volume)
    whole = Segmenter(thresholds, engine="torch", body_crop=False).segment(volume)
    np.testing.assert_array_equal(cropped.labels.voxels, whole.labels.voxels)
    np.testing.assert_array_equal(cropped.confidence.voxels, whole.confidence.voxels)
    engine = Fake()
    Segmenter(thresholds, engine=engine).segment(volume)
    assert engine.shapes == [(32, 48, 48)]


def test_too_little_memory_for_the_whole_means_tiles_beforehand(thresholds, monkeypatch) -> None:
    engine = Fake()
    monkeypatch.setattr(segmenter_module, "affordable_voxels", lambda engine, config: 1000)
    Segmenter(thresholds, engine=engine, body_crop=False).segment(ct())
    assert set(engine.shapes) == {(48, 48, 48)}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_network_that_gives_no_number_is_an_error_not_a_mask(thresholds, value: float) -> None:
    with pytest.raises(EngineError, match=r"^fake: the network's output is not finite$"):
        Segmenter(thresholds, engine=Fake(value)).segment(ct())


def test_a_refused_volume_leaves_the_segmenter_as_it_was(thresholds) -> None:
    segmenter = Segmenter(thresholds, engine="torch")
    before = segmenter.segment(ct()).labels.voxels
    with pytest.raises(VolumeError, match="expected an image"):
        segmenter.segment(ct().with_voxels(np.zeros(ct().shape, np.int16)))
    np.testing.assert_array_equal(segmenter.segment(ct()).labels.voxels, before)


@pytest.mark.parametrize("values", [[0, 1e-45], [0, 1e300], [np.nan, 1]])
def test_voxels_that_are_no_numbers_to_a_network_never_reach_an_engine(thresholds, values) -> None:
    engine = Fake()
    segmenter = Segmenter(thresholds, engine=engine)
    with pytest.raises(VolumeError, match="expected"):
        segmenter.segment(ct().with_voxels(np.resize(np.array(values), ct().shape)))
    assert (engine.shapes, segmenter.describe()["refused"]) == ([], "")


@pytest.mark.parametrize("shape", [(64, 64, 2), (3, 64, 64), (2, 2, 2)])
def test_a_slab_of_two_or_three_voxels_is_segmented(thresholds, shape) -> None:
    voxels = np.full(shape, -1000, np.int16)
    voxels[shape[0] // 2 :] = 60
    labels = Segmenter(thresholds, engine="torch").segment(Volume(voxels, np.diag([2.0, 2, 2, 1]))).labels
    np.testing.assert_array_equal(labels.voxels, voxels > 0)


def test_warnings_of_the_preprocess_are_passed_on(thresholds) -> None:
    result = Segmenter(thresholds, engine=Fake()).segment(ct(spacing_mm=(2.0, 2.0, 12.0)))
    assert len(result.warnings) == 1
    assert "small structures are lost" in result.warnings[0]


def test_describe_names_the_engine_and_the_checkpoint(thresholds) -> None:
    assert Segmenter(thresholds, engine="torch", precision="bf16").describe() == {
        "engine": "torch", "precision": "bf16", "device": "cpu", "agreement": "100.000%", "refused": "",
        "checkpoint": "0" * 16, "size": "small",
    }  # fmt: skip


def test_warm_up_runs_the_shape_to_come(thresholds) -> None:
    engine = Fake()
    segmenter = Segmenter(thresholds, engine=engine, body_crop=False)
    assert segmenter.warm_up((100, 50, 170)) > 0
    segmenter.warm_up()
    segmenter.segment(ct())
    assert engine.shapes == [(112, 64, 192), (112, 112, 128), (64, 64, 80)]
    segmenter.close()
    assert engine.closed == 1


def test_threads_are_torchs_own_unless_given(thresholds) -> None:
    before = torch.get_num_threads()
    Segmenter(thresholds, engine=Fake())
    assert torch.get_num_threads() == before
    Segmenter(thresholds, engine=Fake(), threads=1)
    assert torch.get_num_threads() == 1


def test_bad_arguments_are_refused_before_any_volume(thresholds) -> None:
    with pytest.raises(ValueError, match="modality 'mri': expected one of"):
        Segmenter(thresholds, modality="mri")
    with pytest.raises(ValueError, match="threads -1: expected 0"):
        Segmenter(thresholds, threads=-1)
    with pytest.raises(ValueError, match="max_window_voxels 5: expected at least 110592"):
        Segmenter(thresholds, max_window_voxels=5)


def test_the_largest_window_follows_the_number_of_tokens() -> None:
    assert default_window_voxels(ModelConfig.of_size("small", 3)) == 256 * 256 * 128
    assert default_window_voxels(ModelConfig.of_size("base", 3)) == 128**3
