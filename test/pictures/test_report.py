"""The demo's folder: the keys, the figures worked out by hand, and pictures inside the page."""

import base64
import json
import re

import numpy as np
import pytest
from PIL import Image

from threedme_ros.anatomy import Anatomy, Structure
from threedme_ros.geometry.surface import PointCloud, surface_meshes, surface_points
from threedme_ros.pictures.figure import spoken
from threedme_ros.pictures.report import write_report
from threedme_ros.pictures.results import DemoResults, Evaluation, summary
from threedme_ros.pictures.scene import anatomy_figure
from threedme_ros.volume import Volume, VolumeError

TABLE = Anatomy(
    [
        Structure(1, "liver", (221, 130, 101), 3.0, "target"),
        Structure(2, "kidney_left", (214, 144, 110), 3.0, "no-go"),
        Structure(3, "spleen", (157, 108, 162), 3.0, "no-go"),
    ]
)


@pytest.fixture(scope="module")
def results():
    labels = np.zeros((40, 36, 30), np.uint8)
    labels[22:34, 8:24, 8:22], labels[4:14, 8:18, 8:18] = 1, 2
    truth = np.zeros_like(labels)
    truth[22:34, 8:24, 8:22], truth[4:14, 8:18, 13:23] = 1, 2  # the kidney is half off
    image = Volume(np.where(labels > 0, 60, -300).astype(np.int16), np.diag([2.0, 2, 2, 1]))
    marked = image.with_voxels(labels)
    return DemoResults(
        source="a <phantom> of cubes", checkpoint="demo 0123456789abcdef", engine="torch", anatomy=TABLE, image=image,
        labels=marked, confidence=image.with_voxels(np.full_like(labels, 250)), truth=image.with_voxels(truth),
        cloud=surface_points(marked, None, TABLE), meshes=surface_meshes(marked, TABLE), volumes_published=6,
        volumes_segmented=5, volumes_refused=1, stamp_to_publish_ms=(100.0, 200.0, 300.0, 400.0, float("nan")),
        notes=("Truth made by hand.",), evaluations=(Evaluation("patient C", "never trained on", float("nan")),),
    )  # fmt: skip


def test_summary_has_the_keys_and_the_figures_of_the_phantom(results):
    figures = summary(results)
    assert list(figures)[:9] == [
        "source", "checkpoint", "engine", "volumes_published", "volumes_segmented", "volumes_refused",
        "stamp_to_publish_ms", "mean_dice", "structures",
    ]  # fmt: skip
    assert figures["stamp_to_publish_ms"] == {"p50": 250.0, "p95": 385.0}
    liver, kidney = figures["structures"]
    points = 12 * 16 * 14 - 10 * 14 * 12  # 21.504 ml
    assert liver == {"name": "liver", "volume_ml": 21.5, "points": points, "dice": 1.0}
    assert kidney["dice"] == 0.5
    assert figures["mean_dice"] == 0.75
    assert figures["evaluations"][0]["mean_dice"] is None


def test_without_ground_truth_or_volumes_there_are_nulls(results):
    image = results.image
    bare = DemoResults(
        source="s", checkpoint="c", engine="e", anatomy=TABLE, image=image, labels=results.labels,
        confidence=results.confidence, cloud=results.cloud, meshes={},
    )  # fmt: skip
    figures = json.loads(json.dumps(summary(bare), allow_nan=False))
    assert figures["mean_dice"] is None and figures["stamp_to_publish_ms"] == {"p50": None, "p95": None}
    assert [row["dice"] for row in figures["structures"]] == [None, None]


def test_labels_on_another_grid_are_refused(results):
    with pytest.raises(VolumeError, match="labels of shape"):
        DemoResults(
            source="s", checkpoint="c", engine="e", anatomy=TABLE, image=results.image,
            labels=Volume(np.zeros((2, 2, 2), np.uint8), np.eye(4)), confidence=results.confidence,
            cloud=results.cloud, meshes={},
        )  # fmt: skip


def test_the_folder_holds_pictures_page_and_summary(results, tmp_path):
    page = write_report(tmp_path / "out", results)
    assert sorted(p.name for p in page.parent.iterdir()) == [
        "anatomy.png",
        "overlay.png",
        "report.html",
        "summary.json",
    ]
    text = page.read_text()
    embedded = [base64.b64decode(data) for data in re.findall(r"data:image/png;base64,([^\"]+)", text)]
    assert embedded == [(page.parent / name).read_bytes() for name in ("overlay.png", "anatomy.png")]
    assert 'class="view3d"' in text and "left kidney" in text.split("view3d-data")[1]
    assert "not for clinical use" in text and "a &lt;phantom&gt; of cubes" in text and "http" not in text
    assert "left kidney" in text and "0.500" in text and "Truth made by hand." in text and "never trained on" in text
    assert json.loads((page.parent / "summary.json").read_text()) == summary(results)
    for name, colour in (("overlay.png", (221, 130, 101)), ("anatomy.png", (221, 130, 101))):
        picture = np.asarray(Image.open(page.parent / name).convert("RGB")).astype(int)
        assert picture.shape[1] > 1500
        near = np.abs(picture - colour).sum(-1) < 60
        assert near.sum() > 300


def test_a_scene_without_anatomy_is_refused(tmp_path):
    empty = PointCloud(np.zeros((0, 3), np.float32), np.zeros(0, np.uint8), np.zeros(0, np.uint8))
    with pytest.raises(ValueError, match="no mesh and no point"):
        anatomy_figure(tmp_path / "a.png", {}, empty, TABLE, title="")


def test_names_are_spoken_as_people_say_them():
    assert spoken("kidney_right") == "right kidney" and spoken("inferior_vena_cava") == "inferior vena cava"
