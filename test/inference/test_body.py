import numpy as np

from threedme_ros.inference.body import MAX_SHAPES, BodyCrop, body_box

SHAPE = (64, 160, 170)


def volume(*box, shape=SHAPE) -> np.ndarray:
    x = np.full(shape, -1, np.float32)
    x[tuple(slice(*side) for side in box)] = 0.1
    return x


def test_the_box_holds_the_body_and_a_margin() -> None:
    x = volume((8, 40), (50, 101), (17, 90))
    x[60, 150, 160] = 1  # a speck
    assert body_box(x) == ((4, 44), (44, 108), (12, 96))


def test_noise_in_the_air_is_no_body_and_no_air_is_no_crop() -> None:
    noisy = np.clip(np.random.default_rng(0).normal(-1.05, 0.1, SHAPE), -1, 1).astype(np.float32)
    assert body_box(noisy) is None
    noisy[:, 60:100, 60:100] = 0
    assert body_box(noisy) == ((0, 64), (56, 104), (56, 104))
    assert body_box(np.zeros(SHAPE, np.float32)) is None


def test_a_crop_starts_where_tokens_start_and_saves_whole_rows_of_them() -> None:
    x = volume((0, 64), (50, 101), (17, 90))
    box = BodyCrop().box(x)
    assert box == ((0, 64), (32, 112), (0, 96))
    assert (x[tuple(slice(*side) for side in box)] > 0).sum() == (x > 0).sum()


def test_a_little_air_is_not_worth_another_shape() -> None:
    assert BodyCrop().box(volume((0, 64), (10, 155), (10, 165))) is None


def test_a_body_that_moves_or_shrinks_keeps_the_shape() -> None:
    crop = BodyCrop()
    shape = lambda box: tuple(last - first for first, last in box)  # noqa: E731
    first = crop.box(volume((0, 64), (50, 101), (17, 90)))
    moved = crop.box(volume((0, 64), (100, 151), (60, 125)))
    assert shape(moved) == shape(first) == (64, 80, 96)
    larger = crop.box(volume((0, 64), (50, 125), (17, 90)))
    assert shape(larger) == (64, 112, 96)
    assert shape(crop.box(volume((0, 64), (50, 101), (17, 90)))) == (64, 112, 96)


def test_a_body_at_the_high_end_is_held_whole() -> None:
    x = volume((0, 64), (100, 160), (120, 170))
    box = BodyCrop().box(x)
    assert (x[tuple(slice(*side) for side in box)] > 0).sum() == (x > 0).sum()
    assert all(last <= n and first % 16 == 0 for (first, last), n in zip(box, SHAPE, strict=True))


def test_a_stream_of_ever_new_shapes_costs_no_memory() -> None:
    crop = BodyCrop()
    for n in range(MAX_SHAPES + 10):
        assert crop.box(volume((0, 8), (50, 90), (17, 60), shape=(8, 160, 170 + n))) is not None
    assert len(crop._shapes) == MAX_SHAPES
