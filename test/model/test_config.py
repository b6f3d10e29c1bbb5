import pytest

from threedme_ros.model.config import SIZES, ModelConfig, Preprocessing


@pytest.mark.parametrize("size", sorted(SIZES))
def test_of_size_takes_the_number_of_classes(size):
    config = ModelConfig.of_size(size, 17)
    assert (config.size, config.num_classes) == (size, 17)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 1}, "num_classes 1: expected 2 to 256"),
        ({"token_size": 12}, "token_size 12: expected 8 or 16"),
        ({"vit_dim": 200}, "vit_dim 200: expected a multiple of 6 x 4"),
        ({"channels": (32, 64)}, r"channels \(32, 64\): expected three"),
        ({"knn": 0}, "knn 0: expected a positive integer"),
        ({"channels": (32, 64, 130)}, "expected the last a multiple of 4 heads"),
    ],
)
def test_a_bad_field_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig.of_size("small", **{"num_classes": 17, **changes})


def test_an_unknown_size_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'huge': expected one of \['base', 'large', 'small'\]"):
        ModelConfig.of_size("huge", 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spacing_mm": (3, 3, 0)}, "spacing_mm"),
        ({"ct_window_hu": (500, -300)}, "ct_window_hu"),
        ({"percentiles": (1, 101)}, "percentiles"),
        ({"spacing_mm": (10**400, 3, 3)}, "spacing_mm 1000.*expected finite numbers"),
        ({"spacing_mm": (True, 3, 3)}, "spacing_mm True: expected finite numbers"),
        ({"spacing_mm": "333"}, "spacing_mm '3': expected finite numbers"),
        ({"ct_window_hu": (-300, float("inf"))}, "ct_window_hu inf: expected finite numbers"),
        ({"percentiles": (float("nan"), 99)}, "percentiles nan: expected finite numbers"),
    ],
)
def test_bad_preprocessing_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing(**changes)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vit_depth", 999_999_999),
        ("vit_dim", 600_000),
        ("in_channels", 10**6),
        ("graph_layers", 10**9),
        ("channels", (32, 64, 10**6)),
    ],
)
def test_sizes_no_network_of_ours_has_are_refused_before_memory_is_taken(field, value):
    with pytest.raises(ValueError, match=rf"{field} .*expected"):
        ModelConfig("small", 3, **{field: value})
