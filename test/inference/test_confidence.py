"""The map of confidence: by hand, by group and modality, and in a segmentation whose labels stay."""

import numpy as np
import pytest

from threedme_ros.inference.confidence import ConfidenceMap, table
from threedme_ros.inference.segmenter import Segmenter
from threedme_ros.model.weights_file import CheckpointError
from threedme_ros.volume import Volume

SAME = {"background": (1.0, 0.0), "structures": (1.0, 0.0)}


def test_a_line_of_slope_1_changes_nothing():
    np.testing.assert_array_equal(table(1.0, 0.0)[1:255], np.arange(1, 255))


def test_a_line_by_hand():
    doubled = table(2.0, 0.0)  # odds are squared: 4 to 1 becomes 16 to 1
    assert doubled[204] == round(255 * 16 / 17)
    shifted = table(1.0, np.log(0.25))  # odds are divided by 4
    assert shifted[204] == round(255 / 2)


@pytest.mark.parametrize(("slope", "offset"), [(0.2, -3.0), (1.0, 2.0), (4.0, 0.5)])
def test_a_surer_voxel_stays_at_least_as_sure(slope, offset):
    assert (np.diff(table(slope, offset).astype(int)) >= 0).all()


def test_background_and_structures_of_each_modality_have_their_own():
    less = (1.0, float(np.log(0.25)))
    lines = {"ct": {"background": (1.0, 0.0), "structures": less}, "other": {"background": less, "structures": less}}
    labels, confidence = np.array([0, 3], np.uint8), np.array([204, 204], np.uint8)
    assert ConfidenceMap(lines).apply(labels, confidence, "ct").tolist() == [204, 128]
    assert ConfidenceMap(lines).apply(labels, confidence, "other").tolist() == [128, 128]


def test_a_map_that_lacks_a_line_is_refused():
    with pytest.raises(ValueError, match=r"expected .*structures"):
        ConfidenceMap({"ct": SAME, "other": {"background": (1.0, 0.0)}})


@pytest.mark.parametrize("line", [(-1.0, 0.0), (10**400, 0), (1, -(10**400)), (float("nan"), 0), (1, float("inf"))])
def test_a_line_of_no_use_is_refused(line):
    with pytest.raises(CheckpointError, match=r"slope .*, offset .*: expected numbers up to 100, the slope above 0"):
        ConfidenceMap({"ct": SAME, "other": SAME | {"structures": line}})


@pytest.mark.parametrize("lines", [[1], "x", 5, None, {"ct": SAME, "other": SAME | {"structures": ["a", "b"]}}])
def test_what_is_no_map_is_refused(lines):
    with pytest.raises(CheckpointError, match=r"confidence map .*expected \('ct', 'other'\)"):
        ConfidenceMap(lines)


def test_a_segmentation_has_the_mapped_confidence_and_the_same_labels(thresholds):
    voxels = np.random.default_rng(0).uniform(-250, 250, (40, 36, 32)).astype(np.float32)
    volume = Volume(voxels, np.diag([1.5, 2, 2, 1]))  # resampled, so labels are voted for by confidence
    plain = Segmenter(thresholds, engine="torch", precision="fp32").segment(volume)
    line = {"background": (0.5, 0.3), "structures": (2.0, -1.0)}
    thresholds.calibration = {"temperature": 1.0, "lines": {"ct": line, "other": line}}
    mapped = Segmenter(thresholds, engine="torch", precision="fp32").segment(volume)
    np.testing.assert_array_equal(mapped.labels.voxels, plain.labels.voxels)
    by_hand = np.where(plain.labels.voxels > 0, table(2.0, -1.0)[plain.confidence.voxels], 0)
    structures = plain.labels.voxels > 0
    np.testing.assert_array_equal(mapped.confidence.voxels[structures], by_hand[structures])
    assert (mapped.confidence.voxels != plain.confidence.voxels).any()
