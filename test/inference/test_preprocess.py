from itertools import permutations, product
from types import SimpleNamespace

import numpy as np
import pytest
from nibabel import orientations

from threedme_ros.inference.preprocess import prepare, rescale, restore_labels
from threedme_ros.volume import Volume, VolumeError

PREPROCESSING = SimpleNamespace(spacing_mm=(2.0, 2.0, 2.0), ct_window_hu=(-200.0, 300.0), percentiles=(0.0, 100.0))
ORIENTATIONS = ["".join(axes) for p in permutations(("LR", "PA", "IS")) for axes in product(*p)]


def ct(shape=(12, 10, 8), spacing_mm=(2.0, 2.0, 2.0), dtype=np.int16) -> Volume:
    voxels = np.random.default_rng(3).integers(-1000, 1000, shape).astype(dtype)
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = (-40, 25, 7)
    return Volume(voxels, affine)


def test_axes_are_superior_anterior_right() -> None:
    prepared = prepare(ct(), PREPROCESSING)
    assert prepared.x.shape == (8, 10, 12)
    assert prepared.x.dtype == np.float32
    assert prepared.grid.shape == (12, 10, 8)


def test_a_volume_at_the_models_spacing_is_only_normalised() -> None:
    volume = ct()
    prepared = prepare(volume, PREPROCESSING)
    expected = (np.clip(volume.voxels.T.astype(np.float32), -200, 300) - 50) / 250
    np.testing.assert_allclose(prepared.x, expected, atol=1e-6)
    assert prepared.grid.matches(volume.grid)


def test_the_input_is_not_written_to() -> None:
    volume = ct(dtype=np.float32)
    before = volume.voxels.copy()
    volume.voxels.setflags(write=False)
    prepare(volume, PREPROCESSING)
    np.testing.assert_array_equal(volume.voxels, before)


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_every_orientation_of_a_volume_is_prepared_alike_and_restored_to_its_own_axes(codes: str) -> None:
    volume = ct(spacing_mm=(1.0, 2.0, 3.0))
    turned, _ = volume.reoriented(codes)
    prepared, expected = prepare(turned, PREPROCESSING), prepare(volume, PREPROCESSING)
    np.testing.assert_array_equal(prepared.x, expected.x)
    assert prepared.grid.matches(expected.grid)
    marked = np.arange(prepared.x.size, dtype=np.uint8).reshape(prepared.x.shape)
    certain = np.ones(prepared.x.shape, np.float32)
    labels, confidence = restore_labels(marked, certain, prepared)
    assert labels.shape == confidence.shape == turned.shape
    back, _ = turned.with_voxels(labels).reoriented("RAS")
    np.testing.assert_array_equal(back.voxels, restore_labels(marked, certain, expected)[0])


def test_labels_come_back_bit_for_bit_without_a_rescale() -> None:
    volume, _ = ct().reoriented("PIL")
    prepared = prepare(volume, PREPROCESSING)
    marks = np.random.default_rng(0).integers(0, 17, prepared.x.shape, dtype=np.uint8)
    labels, confidence = restore_labels(marks, np.full(marks.shape, 0.5, np.float32), prepared)
    step = orientations.ornt_transform(orientations.axcodes2ornt("RAS"), orientations.axcodes2ornt("PIL"))
    np.testing.assert_array_equal(labels, orientations.apply_orientation(marks.T, step))
    assert set(np.unique(confidence)) == {128}


def test_rescaling_keeps_a_linear_ramp_where_it_was() -> None:
    # a ramp in mm is reproduced at every centre by a linear, half-voxel-correct rescale, away from the clamped border
    volume = ct((24, 24, 24), (1.0, 2.0, 3.0))
    mm = volume.grid.to_mm(np.argwhere(np.ones(volume.shape)))
    ramp = volume.with_voxels((mm @ (3.0, 2.0, 1.0)).reshape(volume.shape).astype(np.float32))
    prepared = prepare(ramp, PREPROCESSING, "ct")
    assert prepared.grid.shape == (12, 24, 36)
    centres = prepared.grid.to_mm(np.argwhere(np.ones(prepared.grid.shape))).reshape(*prepared.grid.shape, 3)
    expected = (centres @ (3.0, 2.0, 1.0) - 50) / 250  # from -63 to 167, inside the window
    inner = (slice(2, -2),) * 3
    np.testing.assert_allclose(prepared.x.T[inner], expected[inner], atol=1e-5)


def test_shrinking_averages_rather_than_drops() -> None:
    stripes = np.zeros((8, 8, 12), np.float32)
    stripes[..., ::2] = 1
    np.testing.assert_allclose(rescale(stripes, (8, 8, 3))[..., 1], 0.5, atol=0.07)


def test_an_axis_that_keeps_its_size_is_left_exactly() -> None:
    x = np.random.default_rng(0).standard_normal((6, 7, 9)).astype(np.float32)
    constant_along_d = np.broadcast_to(x[:1], x.shape).copy()
    np.testing.assert_array_equal(rescale(x, x.shape), x)
    np.testing.assert_allclose(rescale(constant_along_d, (3, 7, 9)), constant_along_d[:3], atol=1e-6)


def test_metal_weighs_no_more_than_the_window() -> None:
    volume = ct((16, 16, 16), (1.0, 1.0, 1.0))
    soft, metal = np.full(volume.shape, -50, np.int16), np.full(volume.shape, -50, np.int16)
    soft[0, 0, 0] = metal[0, 0, 0] = -1000
    soft[8, 8, 8], metal[8, 8, 8] = 300, 20000
    np.testing.assert_array_equal(
        prepare(volume.with_voxels(metal), PREPROCESSING).x, prepare(volume.with_voxels(soft), PREPROCESSING).x
    )


def test_modality_follows_the_lowest_voxel_unless_told() -> None:
    volume = ct()
    positive = volume.with_voxels(np.abs(volume.voxels))
    assert prepare(volume, PREPROCESSING).modality == "ct"
    assert prepare(positive, PREPROCESSING).modality == "other"
    told = prepare(positive, PREPROCESSING, "ct")
    assert told.modality == "ct"
    assert "lowest voxel" in told.warnings[0]
    with pytest.raises(ValueError, match="'mri': expected one of"):
        prepare(volume, PREPROCESSING, "mri")


def test_other_modalities_use_percentiles_of_the_non_zero_voxels() -> None:
    voxels = np.zeros((8, 8, 8), np.uint16)
    voxels[2:6, 2:6, 2:6] = np.arange(100, 164).reshape(4, 4, 4)
    x = prepare(Volume(voxels, np.diag([2.0, 2, 2, 1])), PREPROCESSING).x.T
    assert x[0, 0, 0] == -1
    np.testing.assert_allclose(x[2:6, 2:6, 2:6].ravel(), np.linspace(-1, 1, 64), atol=1e-5)


def test_a_mask_has_no_spread_among_its_non_zero_voxels_and_still_spans_the_range() -> None:
    voxels = np.zeros((8, 8, 8), bool)
    voxels[2:4] = True
    x = prepare(Volume(voxels, np.diag([2.0, 2, 2, 1])), PREPROCESSING).x
    assert set(np.unique(x)) == {-1, 1}


@pytest.mark.parametrize("dtype", [np.uint8, ">i2", np.int32, np.uint32, np.float16, ">f4", np.float64])
def test_every_real_type_is_taken(dtype) -> None:
    voxels = np.arange(512).reshape(8, 8, 8) % 200
    expected = prepare(Volume(voxels, np.diag([2.0, 2, 2, 1])), PREPROCESSING).x
    x = prepare(Volume(voxels.astype(dtype), np.diag([2.0, 2, 2, 1])), PREPROCESSING).x
    np.testing.assert_allclose(x, expected, atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_voxels_are_refused(value: float) -> None:
    volume = ct(dtype=np.float32)
    volume.voxels[3, 4, 5] = value
    with pytest.raises(VolumeError, match="expected finite numbers"):
        prepare(volume, PREPROCESSING)


OUT_OF_REACH = [
    ([0, 1e-45], "f4", r"voxels from 0 to 1\.4013e-45, mostly"),
    ([1e-40, 3e-40, 2e-40], "f4", "to 3e-40"),
    ([0, 5e-324], "f8", "voxels from 0 to 4.94066e-324"),
    ([0, 1e300, 5e299, 1], "f8", r"voxels from 0 to 1e\+300"),
    ([1, 1.7e308], "f8", r"voxels from 1 to 1\.7e\+308"),
    ([1, 1 + 2e-16], "f8", "voxels from 1 to 1, mostly"),
]


@pytest.mark.parametrize(("values", "dtype", "reason"), OUT_OF_REACH, ids=[reason for *_, reason in OUT_OF_REACH])
@pytest.mark.filterwarnings("error")
def test_intensities_that_float32_cannot_tell_apart_are_refused(values, dtype: str, reason: str) -> None:
    voxels = np.resize(np.array(values, dtype), (8, 8, 8))
    with pytest.raises(VolumeError, match=reason + ".*expected a range that float32 resolves"):
        prepare(Volume(voxels, np.diag([2.0, 2, 2, 1])), PREPROCESSING)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [([1e-30, 2e-30, 3e-30], "f4"), ([0, 3.4e38, 1e38], "f4"), ([-1e300, 1e300, 50], "f8"), ([2**64 - 1, 1], "u8")],
)
def test_intensities_at_the_ends_of_their_type_are_prepared_as_finite_ones(values, dtype: str) -> None:
    x = prepare(Volume(np.resize(np.array(values, dtype), (8, 8, 8)), np.diag([2.0, 2, 2, 1])), PREPROCESSING).x
    assert (x.min(), x.max()) == pytest.approx((-1, 1))


def test_a_constant_volume_is_refused() -> None:
    with pytest.raises(VolumeError, match="every voxel is 7: expected an image"):
        prepare(Volume(np.full((8, 8, 8), 7, np.int16), np.diag([2.0, 2, 2, 1])), PREPROCESSING)


def test_a_ct_with_nothing_in_the_window_is_refused() -> None:
    voxels = np.linspace(-3000, -1000, 512).reshape(8, 8, 8)
    with pytest.raises(VolumeError, match="expected some between -200 and 300 HU"):
        prepare(Volume(voxels, np.diag([2.0, 2, 2, 1])), PREPROCESSING)


@pytest.mark.parametrize(
    ("spacing_mm", "expected"),
    [((0.002, 0.002, 0.002), "expected at least 4 x 4 x 4 mm"), ((2000.0, 2000.0, 2000.0), "expected at most")],
)
def test_a_field_of_view_in_metres_or_micrometres_is_refused(spacing_mm, expected: str) -> None:
    with pytest.raises(VolumeError, match=expected):
        prepare(ct((64, 64, 64), spacing_mm), PREPROCESSING)


@pytest.mark.parametrize(
    ("shape", "spacing_mm"),
    [
        ((4, 4, 2**24), (2.0, 2.0, 2.0)),  # a quarter of a megabyte, gzipped
        ((2**26, 2, 2), (2.0, 2.0, 2.0)),
        ((4097, 8, 8), (2.0, 2.0, 2.0)),
        ((4096, 4096, 2), (2.0, 2.0, 2.0)),  # few voxels, were they not padded
        ((60, 60, 60), (49.0, 49.0, 49.0)),  # 1470^3 at the model's spacing
    ],
)
def test_more_than_the_network_can_see_is_refused_before_a_voxel_is_read(shape, spacing_mm) -> None:
    voxels = np.broadcast_to(np.int8(1), shape)  # would be refused as constant
    with pytest.raises(VolumeError, match="expected at most 4096 voxels along an axis and 268435456 in all"):
        prepare(Volume(voxels, np.diag([*spacing_mm, 1.0])), PREPROCESSING)


@pytest.mark.parametrize("shape", [(512, 512, 300), (256, 256, 256), (4096, 4, 4), (512, 512, 1024)])
def test_large_volumes_of_bodies_are_taken(shape) -> None:
    with pytest.raises(VolumeError, match="every voxel is 1"):  # all that is wrong with them
        prepare(Volume(np.broadcast_to(np.int8(1), shape), np.diag([2.0, 2, 2, 1])), PREPROCESSING)


@pytest.mark.parametrize(
    ("shape", "spacing_mm"),
    [
        ((8, 8, 8), (100.0, 100.0, 100.0)),
        ((8, 8, 8), (51.0, 3.0, 3.0)),
        ((1000, 1000, 1000), (0.005, 0.05, 0.05)),
        ((400, 8, 8), (0.02, 3.0, 3.0)),
    ],
)
def test_a_spacing_no_scanner_has_is_refused(shape, spacing_mm) -> None:
    volume = Volume(np.broadcast_to(np.int8(1), shape), np.diag([*spacing_mm, 1.0]))
    with pytest.raises(VolumeError, match=r"voxel spacing .*: expected 0.01 to 50 mm, the largest at most 100 times"):
        prepare(volume, PREPROCESSING)


def test_what_the_checkpoint_was_not_made_for_is_said() -> None:
    assert prepare(ct(), PREPROCESSING).warnings == ()
    assert "spacing (2, 2, 12) mm" in prepare(ct(spacing_mm=(2, 2, 12)), PREPROCESSING).warnings[0]
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, :3] @= [[1, 0, 0], [0, np.cos(0.7), -np.sin(0.7)], [0, np.sin(0.7), np.cos(0.7)]]
    assert prepare(Volume(ct().voxels, affine), PREPROCESSING).warnings == (
        "axes tilted 40 degrees from the patient's: expected at most 30",
    )
    affine = np.diag([2.0, 2, 2, 1])
    affine[1, 2] = 0.5
    assert "not at right angles" in prepare(Volume(ct().voxels, affine), PREPROCESSING).warnings[0]


def test_labels_of_another_shape_are_refused() -> None:
    prepared = prepare(ct(), PREPROCESSING)
    with pytest.raises(ValueError, match="expected the prepared"):
        restore_labels(np.zeros((1, 2, 3), np.uint8), np.zeros((1, 2, 3), np.float32), prepared)
