from dataclasses import fields

import pytest

pytest.importorskip("rclpy")

from threedme_ros.nodes.parameters import (
    ParameterError,
    PerceptionParameters,
    PlayerParameters,
    _descriptor,
    checked_margin,
)


@pytest.mark.parametrize("table", [PerceptionParameters, PlayerParameters])
def test_every_row_is_described_and_its_default_valid(table):
    table()
    for row in fields(table):
        descriptor = _descriptor(row)
        assert descriptor.description
        assert descriptor.read_only != row.metadata["runtime"]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"engine": "tea"}, "engine 'tea': expected one of"),
        ({"modality": "mr"}, "modality 'mr': expected one of"),
        ({"min_confidence": 1.5}, "min_confidence 1.5: expected 0.0 to 1.0"),
        ({"min_confidence": float("nan")}, "min_confidence nan"),
        ({"threads": -1}, "threads -1"),
        ({"max_voxels": 0}, "max_voxels 0"),
    ],
)
def test_unusable_value_is_named(values, reason):
    with pytest.raises(ParameterError, match=reason):
        PerceptionParameters(**values)


@pytest.mark.parametrize("value", [-1.0, 101.0, float("nan")])
def test_margin_outside_its_range_is_refused(value):
    with pytest.raises(ParameterError, match=r"margin_mm\.aorta"):
        checked_margin("margin_mm.aorta", value)
