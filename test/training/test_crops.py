import numpy as np
import pytest
import torch

from threedme_ros.training.augment import WarpConfig
from threedme_ros.training.crops import CropConfig, CropStream, RankBatches, draw_crop, generator_for
from threedme_ros.training.errors import TrainingError
from threedme_ros.training.masking import MaskingSchedule

TOKEN_MM = (80.0, 80.0, 80.0)
NO_WARP, ALWAYS = WarpConfig(share=0.0), WarpConfig(share=1.0)


def ramp(shape):
    """Every voxel its own value, all of them body."""
    return (np.arange(np.prod(shape)).reshape(shape) / np.prod(shape) * 0.9).astype(np.float16)


def stream(volumes, seed=3, steps=8, step_samples=4, kind="progressive", share=0.5):
    config = CropConfig(((32, 32, 32), (16, 32, 48)), (0.6, 0.4), WarpConfig(share=share))
    schedule = MaskingSchedule(kind, block_mm=((0, 0, 0), (160, 80, 80)))
    return CropStream(volumes, config, schedule, 8, TOKEN_MM, seed=seed, steps=steps, step_samples=step_samples)


def test_a_sample_is_a_function_of_seed_and_number(volumes):
    first, again, other = stream(volumes)[13], stream(volumes)[13], stream(volumes, seed=4)[13]
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a, b)
    assert first.image.shape != other.image.shape or not torch.equal(first.image, other.image)


def test_seeds_that_differ_in_high_bits_only_differ():
    draws = {float(torch.rand((), generator=generator_for(seed, 0, 5))) for seed in (1, 1 + 2**32, 2**33, 7_000_001)}
    assert len(draws) == 4


def test_all_samples_of_a_step_have_one_shape_and_the_masking_of_its_progress(volumes):
    crops = stream(volumes)
    for step in range(8):
        shape, masking = crops.step_plan(step)
        assert masking == crops.schedule.at(step / 7, TOKEN_MM)
        for index in range(4 * step, 4 * step + 4):
            crop = crops[index]
            assert crop.image.shape == (1, *shape) and crop.mask.shape == tuple(n // 8 for n in shape)
            assert abs(crop.mask.float().mean() - masking.ratio) <= 0.5 / crop.mask.numel()


def test_a_schedule_changes_the_masks_and_not_the_windows(volumes):
    progressive, uniform = stream(volumes)[2], stream(volumes, kind="uniform")[2]
    assert torch.equal(progressive.image, uniform.image)
    assert progressive.mask.sum() != uniform.mask.sum()


def test_an_unbent_window_is_cut_out_voxel_for_voxel():
    volume = ramp((40, 50, 60))
    for seed in range(6):
        image, inside = draw_crop(volume, (16, 32, 48), NO_WARP, generator_for(seed))
        assert inside.all()
        start = np.argwhere(volume == np.float16(image[0, 0, 0]))
        found = [
            np.array_equal(volume[d : d + 16, h : h + 32, w : w + 48], image.numpy().astype(np.float16))
            for d, h, w in start
            if d <= 24 and h <= 18 and w <= 12
        ]
        assert any(found)


def test_a_scan_smaller_than_the_window_lies_in_it_whole_with_air_around():
    volume = ramp((10, 20, 30))
    image, inside = draw_crop(volume, (16, 32, 32), NO_WARP, generator_for(1))
    assert int(inside.sum()) == volume.size
    np.testing.assert_array_equal(image[inside].numpy().astype(np.float16), volume.reshape(-1))
    assert (image[~inside] == -1).all()


def test_a_bent_window_of_a_linear_image_is_that_image_nearby():
    """With scale 1 and no bending, a turned window of f = a D + b H + c W has the same slope along other axes."""
    d, h, w = np.meshgrid(*[np.arange(n, dtype=np.float32) for n in (60, 60, 60)], indexing="ij")
    volume = (0.004 * d + 0.002 * h + 0.001 * w).astype(np.float16)
    turned = WarpConfig(rotation_deg=20, scale=(1.0, 1.0), elastic_voxels=0.0, share=1.0)
    windows = [draw_crop(volume, (16, 16, 16), turned, generator_for(seed)) for seed in range(12)]
    whole = [image for image, inside in windows if inside.all()]
    assert len(whole) >= 4
    for image in whole:
        slope = [float(torch.diff(image, dim=axis).mean()) for axis in range(3)]
        assert np.linalg.norm(slope) == pytest.approx(np.linalg.norm([0.004, 0.002, 0.001]), rel=0.02)
        assert float(torch.diff(image, n=2, dim=0).abs().max()) < 1e-3  # float16 steps, no seam


def test_thin_scans_are_left_to_flat_windows():
    from threedme_ros.training.volume_cache import CachedVolume

    thin, thick = CachedVolume("thin", "", (10, 40, 40)), CachedVolume("thick", "", (40, 40, 40))
    crops = stream([thin, thick], steps=40, step_samples=2)
    for step in range(40):
        shape, _ = crops.step_plan(step)
        assert shape[0] == 16 or crops.cases(step) == ["thick"]
    assert any("thin" in crops.cases(step) for step in range(40))


@pytest.mark.parametrize(("batch_size", "accumulate", "ranks"), [(8, 1, 1), (4, 2, 1), (4, 1, 2), (1, 2, 4), (2, 4, 1)])
def test_any_split_of_a_step_sees_the_same_samples(batch_size, accumulate, ranks):
    drawn = [list(RankBatches(5, 7, batch_size, accumulate, rank, ranks)) for rank in range(ranks)]
    for rank in drawn:
        assert len(rank) == 2 * accumulate and all(len(batch) == batch_size for batch in rank)
    step5 = sorted(i for rank in drawn for batch in rank[:accumulate] for i in batch)
    assert step5 == list(range(40, 48))


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"shapes": ((30, 32, 32),), "weights": (1,)}, r"window shape \(30, 32, 32\): expected three multiples of 16"),
        ({"shapes": ((32, 32, 32),), "weights": (1, 2)}, "expected a positive one a shape"),
    ],
)
def test_senseless_windows_are_refused(field, message):
    with pytest.raises(TrainingError, match=message):
        CropConfig(**field)
