"""An interactive 3-D view as a piece of HTML: nothing to fetch, a page of WebGL, data inside.

Every body carries its points as 16-bit integers in one common box (some 10 micrometres a step) and its faces as 16-bit
indices; 16 structures of 5,000 faces are 1 MB of text.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from threedme_ros.anatomy import Anatomy, Role
from threedme_ros.geometry.surface import Mesh
from threedme_ros.pictures.figure import spoken

SCRIPT = Path(__file__).with_name("interactive.js")
STEPS = 65535
ALPHA = {Role.NO_GO: 1.0, Role.TARGET: 0.55, Role.CONTEXT: 0.35}
"""Colour says which structure, opacity says its role: a planner's obstacles are solid, what may be entered is glass."""

STYLE = """
.view3d { position: relative; height: 640px; border: 1px solid #232b3a; border-radius: 10px; overflow: hidden;
  background: radial-gradient(#1b2231, #0e1118); }
.view3d canvas { position: absolute; inset: 0; width: 100%; height: 100%; cursor: grab; touch-action: none; }
.view3d ul { position: absolute; top: 12px; left: 12px; margin: 0; padding: 10px 14px; list-style: none;
  max-height: calc(100% - 44px); overflow: auto; background: #0b0e14cc; border-radius: 8px; font-size: 14px; }
.view3d li label { display: flex; align-items: center; gap: 8px; cursor: pointer; }
.view3d li small { color: #8b96a8; }
.view3d .help { position: absolute; right: 14px; bottom: 10px; margin: 0; font-size: 13px; }
.view3d .letters { position: absolute; inset: 0; pointer-events: none; font-weight: 700; }
.view3d .letters span { position: absolute; transform: translate(-50%, -50%); }
"""


@dataclass(frozen=True, eq=False)
class Body:
    """Something to show: ``faces`` (F, 3) of ``vertices`` (V, 3) m, or no faces for a cloud of points.

    colour: sRGB 0..255. note: shown beside the name. shown: from the start.
    """

    name: str
    vertices: np.ndarray
    faces: np.ndarray | None
    colour: tuple[int, int, int]
    alpha: float = 1.0
    note: str = ""
    shown: bool = True


def anatomy_bodies(meshes: Mapping[str, Mesh], anatomy: Anatomy) -> list[Body]:
    return [
        Body(spoken(s.name), meshes[s.name].vertices, meshes[s.name].faces, s.colour, ALPHA[s.role], str(s.role))
        for s in anatomy
        if s.name in meshes
    ]


def tube(points: np.ndarray, radius_m: float, sides: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and faces of an open tube around a polyline (N, 3) m, N >= 2, wound outward."""
    along = np.gradient(points, axis=0)
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-12)
    aside = np.eye(3)[np.abs(along.mean(0)).argmin()]
    first = np.cross(along, aside)
    first /= np.maximum(np.linalg.norm(first, axis=1, keepdims=True), 1e-12)
    second = np.cross(along, first)
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    ring = np.cos(angle)[:, None] * first[:, None] + np.sin(angle)[:, None] * second[:, None]
    vertices = (points[:, None] + radius_m * ring).reshape(-1, 3)
    a = np.arange(len(points) - 1)[:, None] * sides + np.arange(sides)
    b = np.arange(len(points) - 1)[:, None] * sides + (np.arange(sides) + 1) % sides
    faces = np.concatenate([np.stack([a, b, a + sides], -1), np.stack([b, b + sides, a + sides], -1)])
    return vertices, faces.reshape(-1, 3)


def interactive_view(bodies: list[Body]) -> str:
    """A ``<section>`` for any page that also has `STYLE`. Raises ValueError for no body, or one of 65,536 vertices."""
    if not bodies:
        raise ValueError("no body: expected something to show")
    everything = np.concatenate([body.vertices for body in bodies])
    low, high = everything.min(0), everything.max(0)
    rows = []
    for body in bodies:
        if body.faces is not None and len(body.vertices) > STEPS:
            raise ValueError(f"{body.name}: {len(body.vertices)} vertices: expected at most {STEPS}")
        steps = np.round((body.vertices - low) / np.maximum(high - low, 1e-9) * STEPS).astype("<u2")
        faces = "" if body.faces is None else _text(body.faces.astype("<u2"))
        rows.append(
            {"name": body.name, "note": body.note, "colour": list(body.colour), "alpha": body.alpha,
             "shown": body.shown, "points": _text(steps), "faces": faces}
        )  # fmt: skip
    data = json.dumps({"low": low.tolist(), "high": high.tolist(), "bodies": rows}).replace("<", "\\u003c")
    lines = "".join(
        f'<li><label><input type="checkbox" data-body="{number}"{" checked" if body.shown else ""}>'
        f'<span class="swatch" style="background:rgb{tuple(body.colour)};margin:0"></span>{escape(body.name)} '
        f"<small>{escape(body.note)}</small></label></li>"
        for number, body in enumerate(bodies)
    )
    return f"""<section class="view3d" data-state="starting">
<canvas></canvas><div class="letters"></div><ul>{lines}</ul>
<p class="help">drag: turn, shift and drag: move, wheel: zoom, double click: from the front</p></section>
<script type="application/json" id="view3d-data">{data}</script>
<script>{SCRIPT.read_text()}</script>"""


def _text(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
