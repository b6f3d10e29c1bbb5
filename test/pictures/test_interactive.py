"""The 3-D view: data survive the packing, tubes are round, nothing is fetched, and a browser draws it."""

import base64
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
import trimesh

from threedme_ros.pictures.interactive import STYLE, Body, interactive_view, tube

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


def cube(centre, name="<cube>", **more):
    box = trimesh.creation.box(extents=(0.1, 0.1, 0.1))
    return Body(name, box.vertices + centre, box.faces, (200, 10, 20), **more)


def content(view):
    return json.loads(re.search(r'id="view3d-data">(.*)</script>', view)[1])


def array(text, shape=(-1, 3)):
    return np.frombuffer(base64.b64decode(text), "<u2").reshape(shape)


def test_points_and_faces_come_back_to_ten_micrometres():
    bodies = [cube((0.1, 0.2, 0.3)), Body("cloud", np.random.default_rng(0).random((50, 3)) / 2, None, (1, 2, 3))]
    data = content(interactive_view(bodies))
    low, high = np.array(data["low"]), np.array(data["high"])
    for body, row in zip(bodies, data["bodies"], strict=True):
        assert np.abs(low + array(row["points"]) / 65535 * (high - low) - body.vertices).max() < 1e-5
    assert np.array_equal(array(data["bodies"][0]["faces"]), bodies[0].faces) and data["bodies"][1]["faces"] == ""


def test_names_are_escaped_and_nothing_is_fetched():
    view = interactive_view([cube((0, 0, 0), name="</script><b>")])
    assert "</script><b>" not in view and "&lt;b&gt;" in view
    assert "http" not in view and "import(" not in view and "src=" not in view


def test_a_tube_keeps_its_distance_and_faces_outward():
    line = np.linspace([0, 0, 0], [0.02, 0.03, 0.05], 20)
    vertices, faces = tube(line, 0.002)
    along = (line[-1] - line[0]) / np.linalg.norm(line[-1] - line[0])
    from_axis = vertices - (vertices @ along)[:, None] * along
    assert np.allclose(np.linalg.norm(from_axis, axis=1), 0.002)
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    outward = from_axis[faces].mean(1)
    assert (np.einsum("ij,ij->i", np.cross(b - a, c - a), outward) > 0).all()


def test_too_much_or_nothing_is_refused():
    with pytest.raises(ValueError, match="no body"):
        interactive_view([])
    with pytest.raises(ValueError, match="65536 vertices"):
        interactive_view([Body("large", np.zeros((65536, 3)), np.zeros((1, 3), int), (0, 0, 0))])


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_a_browser_without_a_network_draws_it(tmp_path):
    bodies = [cube((0, 0, 0)), cube((0.2, 0, 0), name="glass", alpha=0.4), cube((0, 0.3, 0), name="off", shown=False)]
    page = tmp_path / "page.html"
    page.write_text(f"<!doctype html><meta charset=utf-8><style>{STYLE}</style>{interactive_view(bodies)}")
    command = [BROWSER, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--dump-dom"]
    done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    assert 'data-state="drawn"' in done.stdout
    assert len(re.findall(r"<span style=\"left:[\d.]+%", done.stdout)) == 4  # R, L, S, I: A and P point at the viewer
