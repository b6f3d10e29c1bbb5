from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from threedme_ros.inference.engines import EngineError
from threedme_ros.inference.incremental import UPDATES, IncrementalSegmenter, UpdatePolicy
from threedme_ros.inference.segmenter import Segmenter
from threedme_ros.volume import Volume, VolumeError

SHAPE = (96, 112, 130)
SMALL_WINDOWS = UpdatePolicy(sizes=(64,), most=0.9)


@pytest.fixture
def volume() -> Volume:
    """Random tissue at the model's 2 mm."""
    voxels = np.random.default_rng(0).integers(-400, 300, SHAPE).astype(np.int16)
    return Volume(voxels, np.diag([2.0, 2.0, 2.0, 1.0]), "patient")


def with_box(volume: Volume, low, size=(8, 10, 12), value=250) -> Volume:
    voxels = volume.voxels.copy()
    voxels[tuple(slice(a, a + n) for a, n in zip(low, size, strict=True))] = value
    return volume.with_voxels(voxels)


@pytest.fixture
def segmenter(thresholds) -> Segmenter:
    return Segmenter(thresholds, engine="torch")


@pytest.mark.parametrize("seed", range(4))
def test_updates_equal_full_passes_for_a_network_that_looks_at_one_voxel(segmenter, volume, seed: int) -> None:
    incremental = IncrementalSegmenter(segmenter, SMALL_WINDOWS)
    assert incremental.segment(volume).update == "full"
    rng = np.random.default_rng(seed)
    for _ in range(3):
        volume = with_box(volume, [int(rng.integers(0, n - 8)) for n in SHAPE], value=int(rng.integers(100, 300)))
        result, expected = incremental.segment(volume), segmenter.segment(volume)
        assert result.update == "incremental"
        np.testing.assert_array_equal(result.labels.voxels, expected.labels.voxels)


def test_what_did_not_change_is_not_seen_again_and_noise_does_not_flicker(segmenter, volume) -> None:
    incremental = IncrementalSegmenter(segmenter, SMALL_WINDOWS)
    first = incremental.segment(volume)
    noisy = volume.with_voxels(volume.voxels + np.random.default_rng(1).integers(-6, 7, SHAPE).astype(np.int16))
    second = incremental.segment(noisy)
    assert second.update == "unchanged"
    np.testing.assert_array_equal(second.labels.voxels, first.labels.voxels)
    assert (segmenter.segment(noisy).labels.voxels != first.labels.voxels).any()


def test_changes_too_small_to_see_do_not_add_up_unseen(segmenter, volume) -> None:
    incremental = IncrementalSegmenter(segmenter, UpdatePolicy(full_every=0, sizes=(64,), most=0.9))
    volume = with_box(volume, (40, 40, 40), (16, 16, 16), -3)
    incremental.segment(volume)
    updates = []
    for step in range(1, 5):  # 2 HU at a time in a window of 400: 0.01 of the network's range
        shifted = with_box(volume, (40, 40, 40), (16, 16, 16), -3 + 2 * step)
        updates.append(incremental.segment(shifted).update)
    assert "incremental" in updates
    assert (incremental.segment(shifted).labels.voxels[44:52, 44:52, 44:52] == 1).all()


def test_an_earlier_result_stays_as_it_was(segmenter, volume) -> None:
    incremental = IncrementalSegmenter(segmenter, SMALL_WINDOWS)
    first = incremental.segment(volume)
    kept = first.labels.voxels.copy(), first.confidence.voxels.copy()
    incremental.segment(with_box(volume, (40, 40, 40)))
    np.testing.assert_array_equal(first.labels.voxels, kept[0])
    np.testing.assert_array_equal(first.confidence.voxels, kept[1])


def test_another_place_time_or_amount_of_change_takes_a_full_pass(segmenter, volume) -> None:
    incremental = IncrementalSegmenter(segmenter, UpdatePolicy(full_every=3, sizes=(64,), most=0.9))

    def update(volume: Volume) -> str:
        return incremental.segment(volume).update

    assert [update(volume) for _ in range(7)] == ["full", "unchanged", "unchanged"] * 2 + ["full"]
    moved = volume.affine.copy()
    moved[0, 3] += 5
    assert update(replace(volume, affine=moved)) == "full"
    assert update(replace(volume, affine=moved)) == "unchanged"
    assert update(replace(volume, affine=moved, frame_id="table")) == "full"
    assert update(volume.with_voxels(np.ascontiguousarray(volume.voxels[::-1]))) == "full"
    incremental.forget()
    assert update(volume) == "full"


def test_storage_order_does_not_matter(segmenter, volume) -> None:
    incremental = IncrementalSegmenter(segmenter, SMALL_WINDOWS)
    incremental.segment(volume)
    turned, step = with_box(volume, (20, 60, 60)).reoriented("LPS")
    result = incremental.segment(turned)
    assert result.update == "incremental"
    expected = segmenter.segment(with_box(volume, (20, 60, 60))).labels.voxels
    np.testing.assert_array_equal(step.invert(result.labels.voxels), expected)


def test_after_an_error_the_next_volume_is_seen_whole(segmenter, volume, monkeypatch) -> None:
    incremental = IncrementalSegmenter(segmenter, SMALL_WINDOWS)
    incremental.segment(volume)
    with pytest.raises(VolumeError):
        incremental.segment(volume.with_voxels(np.zeros(SHAPE, np.int16)))
    assert incremental.segment(volume).update == "full"

    def fails(*_):
        raise EngineError("fake: no memory")

    with monkeypatch.context() as patch, pytest.raises(EngineError):
        patch.setattr(segmenter, "predict_windows", fails)
        incremental.segment(with_box(volume, (40, 40, 40)))
    assert incremental.segment(volume).update == "full"


def test_context_that_a_window_lacks_changes_no_label(thresholds, volume) -> None:
    class Contextual(torch.nn.Module):
        """Its labels depend on the mean of all it sees, as a global attention's do."""

        def predict(self, x):
            x = x[:, 0]
            return (x > 0.2 * torch.tanh(x.mean())).long(), torch.ones_like(x)

    thresholds.build = Contextual
    segmenter = Segmenter(thresholds, engine="torch")
    incremental = IncrementalSegmenter(segmenter, SMALL_WINDOWS)
    before = incremental.segment(volume).labels.voxels
    after = with_box(volume, (40, 40, 40))
    labels = incremental.segment(after).labels.voxels
    assert set(np.unique(labels[before != labels])) <= {1}
    assert (after.voxels != volume.voxels)[before != labels].all()


def test_warm_up_runs_the_windows_of_updates_too(thresholds) -> None:
    shapes = []
    engine = SimpleNamespace(
        name="fake",
        precision="fp32",
        device="cpu",
        run=lambda x: (shapes.append(x.shape), (np.zeros(x.shape, np.uint8), np.ones(x.shape, np.float32)))[1],
    )
    IncrementalSegmenter(Segmenter(thresholds, engine=engine)).warm_up((48, 80, 200))
    assert sorted(shapes) == [(48, 64, 64), (48, 80, 80), (48, 80, 224)]


def test_bad_policies_are_refused() -> None:
    with pytest.raises(ValueError, match=r"sizes \(40,\): expected multiples of 16 from 48"):
        UpdatePolicy(sizes=(40,))
    with pytest.raises(ValueError, match="expected a threshold between 0 and 2"):
        UpdatePolicy(threshold=0)
    assert UPDATES[0] == "full"
