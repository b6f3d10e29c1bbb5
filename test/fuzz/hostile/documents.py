"""YAML and JSON: the label table in a file, a checkpoint and a message, scope and calibration, a result's trace."""

from __future__ import annotations

import numpy as np

from threedme_ros.anatomy import Anatomy, AnatomyError
from threedme_ros.documents import DocumentError, parse_mapping
from threedme_ros.inference.confidence import MODALITIES, ConfidenceMap
from threedme_ros.inference.made_by import MadeBy, MadeByError
from threedme_ros.inference.scope import FARTHEST, FEATURES, ScopeModel
from threedme_ros.model.weights_file import CheckpointError
from threedme_ros.volume import VolumeError

from . import seeds
from .decoder import Decoder, from_file
from .mutation import text_mutator

YAML_WORDS = (
    "&a [*a]",
    "*a",
    "&a ",
    "<<: *a",
    "!!python/object/apply:os.system ['id']",
    "!!timestamp 2001-99-99",
    "2001-99-99",
)
YAML_WORDS += (
    "!!int ''",
    "!!bool maybe",
    "!!binary '*'",
    "!!float x",
    "!!set {a}",
    "!!omap [a: 1]",
    "? ",
    "- ",
    ": ",
    "|\n",
    ">-\n",
)
YAML_WORDS += (
    ".inf",
    ".nan",
    "1:60:60",
    "0b",
    "0x",
    "~",
    "%YAML 9.9\n---\n",
    "---\n",
    "{a: b}",
    "[1, 2]",
    "a: &a [x, x, x]\n",
)
YAML_WORDS += ("0x" + "f" * 62, "0x" + "f" * 5000, "0b" + "1" * 20_000, "0" + "7" * 5000, "1" + ":00" * 5000)
YAML_WORDS += ("a: &a [1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b,*b,*b,*b]\n",)
JSON_WORDS = (
    '"id": 300',
    '"id": 1',
    "NaN",
    "Infinity",
    "1e400",
    "true",
    "null",
    '"\\ud800"',
    '"a": {}',
    "-0",
    '"margin_mm"',
)
FITTED_WORDS = (
    *JSON_WORDS,
    '"threshold"',
    '"features": []',
    '"arrangement": null',
    "[0, 0, 0]",
    "[[1, 2]]",
    "[]",
    "1e9",
)


def check_anatomy(anatomy: Anatomy) -> None:
    assert 1 <= len(anatomy) <= 255 and all(1 <= s.id <= 255 and 0 <= s.margin_mm <= 100 for s in anatomy)
    assert all(s.name.isprintable() for s in anatomy)
    assert Anatomy.from_json(anatomy.to_json()) == anatomy


def decode_label_info(data: bytes) -> Anatomy:
    from std_msgs.msg import String

    from threedme_ros.nodes.messages import anatomy_from_label_info

    return anatomy_from_label_info(String(data=data.decode("utf-8", "replace")))


def read_trace(data: bytes) -> MadeBy:
    return MadeBy.from_json(data.decode("utf-8", "replace"))


def check_trace(made_by: MadeBy) -> None:
    assert MadeBy.from_json(made_by.to_json()) == made_by


def read_fitted(data: bytes) -> tuple[ScopeModel, ConfidenceMap]:
    """What a checkpoint may have of scope and calibration, as a segmenter makes use of it."""
    document = parse_mapping(data)
    return ScopeModel.from_dict(document.get("scope")), ConfidenceMap(document.get("lines"))


def check_fitted(fitted: tuple[ScopeModel, ConfidenceMap]) -> None:
    scope, confidence = fitted
    for figures in (np.zeros(len(FEATURES)), np.full(len(FEATURES), 1e6)):
        verdict = scope.judge_figures(figures)
        assert np.isfinite(verdict.score) and np.isfinite(verdict.threshold)
    for middle in (np.zeros(3), np.full(3, 1e6)):
        assert 0 <= scope.arrangement.misplaced({i: i * middle for i in range(256)}) <= FARTHEST
    levels = np.arange(256, dtype=np.uint8)
    for modality in MODALITIES:
        assert (np.diff(confidence.apply(levels, levels, modality)[1:].astype(int)) >= 0).all()


def decoders() -> tuple[Decoder, ...]:
    yaml, json = text_mutator(YAML_WORDS), text_mutator(JSON_WORDS)
    table = {"refusals": (AnatomyError,), "check": check_anatomy}

    def from_json(data: bytes) -> Anatomy:
        return Anatomy.from_json(data.decode("utf-8", "replace"))

    return (
        from_file("anatomy_yaml", ".yaml", Anatomy.from_yaml, mutate=yaml, seeds=seeds.anatomy_yaml, **table),
        Decoder("anatomy_json", from_json, mutate=json, seeds=seeds.anatomy_json, **table),
        Decoder(
            "fitted",
            read_fitted,
            (DocumentError, CheckpointError),
            check_fitted,
            text_mutator(FITTED_WORDS),
            seeds.fitted,
        ),
        Decoder("trace", read_trace, (MadeByError,), check_trace, json, seeds.trace),
        Decoder("label_info", decode_label_info, (VolumeError, AnatomyError), check_anatomy, json, seeds.label_info),
    )
