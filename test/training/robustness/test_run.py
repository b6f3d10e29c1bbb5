"""The suite as a whole, with a segmenter whose answers are known."""

import numpy as np
import pytest

from threedme_ros.inference.segmenter import Segmentation
from threedme_ros.training.robustness.pictures import Gallery
from threedme_ros.training.robustness.run import robustness
from threedme_ros.training.robustness.suite import CORRUPTIONS, chosen
from threedme_ros.volume import Volume

LIVER_HU, SPLEEN_HU = 300, 600


class ByIntensity:
    """Says liver around 300 HU and spleen around 600 HU, always with the same confidence."""

    def __init__(self, anatomy, confidence=255):
        self.ids, self.confidence = (anatomy["liver"].id, anatomy["spleen"].id), confidence

    def segment(self, volume):
        labels = np.zeros(volume.shape, np.uint8)
        for label, level in zip(self.ids, (LIVER_HU, SPLEEN_HU), strict=True):
            labels[np.abs(volume.voxels - level) < 100] = label
        confidence = np.full(volume.shape, self.confidence, np.uint8)
        return Segmentation(volume.with_voxels(labels), volume.with_voxels(confidence), {})


@pytest.fixture(scope="module")
def body(anatomy):
    """A trunk of 40 x 32 x 48 voxels with a block of liver on the right and of spleen on the left; image and truth."""
    voxels = np.full((40, 32, 48), -1000, np.int16)
    voxels[4:36, 4:28] = 0
    labels = np.zeros(voxels.shape, np.uint8)
    for name, level, where in (
        ("liver", LIVER_HU, np.s_[24:34, 8:24, 16:40]),
        ("spleen", SPLEEN_HU, np.s_[6:14, 8:20, 20:36]),
    ):
        voxels[where], labels[where] = level, anatomy[name].id
    image = Volume(voxels, np.diag([5.0, 5.0, 5.0, 1.0]))
    return image, image.with_voxels(labels)


def test_a_flipped_storage_order_loses_nothing(body, anatomy):
    report = robustness(
        ByIntensity(anatomy), *body, ("liver", "spleen"), anatomy=anatomy, corruptions=chosen(["storage order"])
    )
    assert [row.mean_dice for row in report.rows] == [1.0, 1.0, 1.0] and report.clean.mean_dice == 1.0


def test_every_corruption_runs_and_what_hides_the_structures_costs(body, anatomy):
    report = robustness(ByIntensity(anatomy), *body, ("liver", "spleen"), anatomy=anatomy)
    rows = {(row.corruption, row.strength): row for row in report.rows}
    assert len(rows) == sum(len(c.strengths) for c in CORRUPTIONS) == len(report.rows)
    noise = [rows["noise", s].mean_dice for s in (20, 40, 80, 160)]
    assert noise == sorted(noise, reverse=True) and noise[0] > 0.999 and noise[-1] < 0.9
    assert rows["intensity shift", 50].mean_dice == 1.0
    assert rows["slab", 40].dice == {"liver": 1.0, "spleen": 1.0}
    assert rows["truncation", 60].mean_dice == 1.0  # the truth outside is gone, too
    assert report.mean_dice == pytest.approx(np.mean([row.mean_dice for row in report.rows]))


def test_calibration_error_is_that_of_the_confidence(body, anatomy):
    image, truth = body
    found = robustness(
        ByIntensity(anatomy, confidence=204), image, truth, ("liver", "spleen"), anatomy=anatomy, corruptions=()
    )
    assert found.clean.ece == pytest.approx(0.2, abs=1e-6)  # always right, 80 % sure


def test_a_missed_structure_counts_0_and_an_unknown_one_nothing(body, anatomy):
    image, truth = body
    wrong = truth.with_voxels(np.where(truth.voxels == anatomy["spleen"].id, anatomy["aorta"].id, truth.voxels))
    found = robustness(ByIntensity(anatomy), image, wrong, ("liver", "aorta"), anatomy=anatomy, corruptions=())
    assert found.clean.dice == {"liver": 1.0, "aorta": 0.0} and found.clean.mean_dice == 0.5
    assert found.clean.ece == 0  # what was called spleen may be one, for all this truth knows


def test_structures_that_no_table_knows_are_refused(body, anatomy):
    with pytest.raises(ValueError, match=r"structures \['heart'\]: expected some of"):
        robustness(ByIntensity(anatomy), *body, ("heart",), anatomy=anatomy)


def test_an_unknown_corruption_is_refused():
    with pytest.raises(ValueError, match="corruption 'fog': expected one of"):
        chosen(["fog"])


def test_a_picture_of_each_and_one_of_all(body, anatomy, tmp_path):
    from PIL import Image

    gallery = Gallery(anatomy)
    robustness(
        ByIntensity(anatomy), *body, ("liver", "spleen"), anatomy=anatomy, watch=gallery.add,
        corruptions=chosen(["noise", "slice thickness"]),
    )  # fmt: skip
    paths = gallery.save(tmp_path)
    assert [p.name for p in paths] == ["noise.png", "slice_thickness.png", "all.png"]
    noise, thick, both = (Image.open(p) for p in paths)
    assert both.height < noise.height + thick.height and both.width == max(noise.width, thick.width)
    colour = np.array(anatomy["spleen"].colour)
    pixels = np.asarray(noise)[:, :240]  # the clean panel: contours above, filled below
    outlined = (np.abs(pixels.astype(int) - colour).max(-1) < 12).any(1)
    assert outlined[: len(outlined) // 2].any() and outlined[len(outlined) // 2 :].any()


def test_the_table_for_a_document_has_a_row_a_corruption(body, anatomy):
    from threedme_ros.training.robustness.command import document

    found = robustness(ByIntensity(anatomy), *body, ("liver",), anatomy=anatomy, corruptions=chosen(["slab", "roll"]))
    rows = document(found).splitlines()
    assert rows[2].startswith("| none |") and "1.000" in rows[2]
    assert rows[3].startswith("| slab | 120, 80, 40 mm | 1.000, 1.000, 1.000 | ")
    assert rows[4].startswith("| roll | 10, 20, 30 degrees | ") and len(rows) == 6
