"""The demo on a made-up patient: a barrel of water with a ball in the way and a target in a closed shell."""

from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from threedme_ros.anatomy import Anatomy, Structure
from threedme_ros.geometry.surface import surface_meshes
from threedme_ros.pictures.planning import planning_figure
from threedme_ros.planning.body import body_mask, skin_point
from threedme_ros.planning.demo import figures, plan_demo
from threedme_ros.volume import Volume

AFFINE = np.array([[-3.0, 0, 0, 90], [0, 3, 0, -90], [0, 0, 3, -60], [0, 0, 0, 1]])  # i runs to the left
TABLE = Anatomy(
    [
        Structure(1, "vessel", (200, 60, 60), 5.0, "no-go"),
        Structure(2, "bone", (220, 220, 120), 2.0, "no-go"),
        Structure(3, "organ", (160, 100, 60), 3.0, "target"),
    ]
)


@pytest.fixture(scope="module")
def patient():
    index = np.stack(np.meshgrid(*map(np.arange, (61, 61, 41)), indexing="ij"), -1)
    r, a, s = np.moveaxis(index @ AFFINE[:3, :3].T + AFFINE[:3, 3], -1, 0)
    hu = np.where(r**2 + a**2 < 80**2, 30, -1000)
    hu[np.hypot(r, a) < 12] = -900  # air inside is still the body
    labels = np.zeros(hu.shape, np.uint8)
    labels[r**2 + (a - 30) ** 2 + s**2 < 20**2] = 1
    shell = np.sqrt((r - 45) ** 2 + (a + 20) ** 2 + s**2)
    labels[(shell < 24) & (shell > 15)] = 2
    labels[(r + 20) ** 2 + (a + 30) ** 2 + s**2 < 15**2] = 3
    return Volume(hu.astype(np.int16), AFFINE), Volume(labels, AFFINE)


def test_the_body_is_found_with_its_cavities_and_its_skin(patient):
    body = body_mask(patient[0])
    inside = body.grid.to_mm(np.argwhere(body.voxels))
    assert np.hypot(inside[:, 0], inside[:, 1]).max() < 80 and body.voxels[30, 30, 20]
    assert body.voxels.mean() == pytest.approx(np.pi * 80**2 / 183**2, rel=0.02)
    assert skin_point(body, np.array([0.0, 0.2, 0.0])) * 1e3 == pytest.approx([0, 78, 0], abs=2)
    with pytest.raises(ValueError, match="-300 HU"):
        body_mask(patient[0].with_voxels(np.full(patient[0].shape, -1000, np.int16)))


@pytest.mark.skipif(not (find_spec("ompl") and find_spec("coal")), reason="the extra `planning` is not installed")
def test_margins_are_kept_a_straight_way_is_not_free_and_the_shell_is_refused(patient, tmp_path):
    image, labels = patient
    meshes = surface_meshes(labels, TABLE, max_faces=600)
    places = {"entry_near_m": (0, 0.2, 0), "target_m": (-0.02, -0.03, 0), "sealed_m": (0.045, -0.02, 0)}
    results = plan_demo(image, labels, None, meshes, TABLE, **places, max_checks=2500)
    assert results.keeps_margins(results.with_margins) and results.with_margins.clearance_mm["vessel"] >= 5
    assert 0 <= results.bare.clearance_mm["vessel"] < 5
    assert results.through.clearance_mm["vessel"] < -10 and not results.keeps_margins(results.through)
    assert results.with_margins.length_mm > results.through.length_mm > 100
    assert results.unreachable.poses is None and "bone" in results.unreachable.reason
    rows = figures(results)["ways"]
    assert [row["found"] for row in rows] == [True, True, True, False]
    assert [row["keeps_every_margin"] for row in rows] == [True, False, False, False]
    assert rows[0]["target_mm"] == [-20.0, -30.0, 0.0]
    planning_figure(tmp_path / "planning.png", results, title="a made-up patient")
    picture = np.asarray(Image.open(tmp_path / "planning.png").convert("RGB")).astype(int)
    assert (np.abs(picture - (0x57, 0xE0, 0x8C)).sum(-1) < 40).sum() > 500  # the green way is in the picture
    with pytest.raises(ValueError, match="no no-go structure"):
        plan_demo(image, labels, None, {"organ": meshes["organ"]}, TABLE)
