"""anatomy.png: the published meshes and clouds in 3-D, from the front and from the back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from scipy.spatial import cKDTree

from threedme_ros.anatomy import Anatomy
from threedme_ros.geometry.surface import Mesh, PointCloud
from threedme_ros.pictures.figure import CAVEAT, FAINT, INK, dark_figure, heading, legend, save
from threedme_ros.pictures.render import Balls, Camera, Frame, Solid, render

WIDTH_INCHES = 16.0
PANEL_PIXELS = (780, 675)
FRONT = Camera(towards=(0.42, -0.88, -0.22))
BACK = Camera(towards=(0.55, 0.80, -0.22))
AXES = (("R", (1, 0, 0), "#ff6b6b"), ("A", (0, 1, 0), "#6bdc7d"), ("S", (0, 0, 1), "#6fa8ff"))
SCALE_BAR_M = 0.05


def anatomy_figure(
    path: Path, meshes: Mapping[str, Mesh], cloud: PointCloud, anatomy: Anatomy, *, title: str, subtitle: str = ""
) -> None:
    """Write a PNG: the meshes from the front and from the back, and the cloud from the front.

    Everything in metres, RAS+. Raises ValueError when there is neither a mesh nor a point.
    """
    corners = [m.vertices for m in meshes.values()] + ([cloud.points] if len(cloud) else [])
    if not corners:
        raise ValueError("no mesh and no point: expected anatomy to draw")
    everything = np.concatenate(corners)
    solids = [Solid(m.vertices, m.faces, np.array(anatomy[name].colour) / 255) for name, m in meshes.items()]
    balls = [Balls(cloud.points, anatomy.colour_map()[cloud.labels] / 255, _ball_radius(cloud.points))]
    panels = (
        ("meshes, from the front", FRONT, solids),
        ("meshes, from behind", BACK, solids),
        ("point cloud, from the front", FRONT, balls if len(cloud) else []),
    )
    frames = [framed(camera, everything) for _, camera, _ in panels]
    per_metre = min(f.per_metre for f in frames)

    side, gap, bottom, top = 0.35, 0.22, 1.5, 1.15
    width = (WIDTH_INCHES - 2 * side - 2 * gap) / 3
    tall = width * PANEL_PIXELS[0] / PANEL_PIXELS[1]
    height = tall + bottom + top
    figure = dark_figure(WIDTH_INCHES, height)
    for number, ((name, camera, things), frame) in enumerate(zip(panels, frames, strict=True)):
        frame = Frame(camera, frame.centre, PANEL_PIXELS, per_metre)
        left = side + number * (width + gap)
        axes = figure.add_axes((left / WIDTH_INCHES, bottom / height, width / WIDTH_INCHES, tall / height))
        draw_panel(axes, render(things, frame), frame)
        axes.set_title(name, color=FAINT, fontsize=11, loc="left", pad=5)
    heading(figure, title, subtitle)
    shown = [s for s in anatomy if s.name in meshes or (cloud.labels == s.id).any()]
    legend(figure, shown, (side / WIDTH_INCHES, 0.5 / height), (1 - 2 * side / WIDTH_INCHES, 0.72 / height))
    footer = f"R right, A anterior, S superior, in the patient frame; the scale bar is 50 mm.   {CAVEAT}."
    figure.text(side / WIDTH_INCHES, 0.18 / height, footer, color=FAINT, fontsize=9, va="bottom")
    save(figure, path)


def framed(camera: Camera, points: np.ndarray) -> Frame:
    """The largest frame of PANEL_PIXELS that holds all points (N, 3) m, with a margin."""
    seen = points @ camera.rotation.T
    low, high = seen.min(0), seen.max(0)
    rows, columns = PANEL_PIXELS
    per_metre = 0.86 * min(columns / (high[0] - low[0] + 1e-6), rows / (high[1] - low[1] + 1e-6))
    return Frame(camera, (low + high) / 2 @ camera.rotation, PANEL_PIXELS, float(per_metre))


def _ball_radius(points: np.ndarray) -> float:
    """m: balls of neighbouring points just touch."""
    if len(points) < 2:
        return 0.001
    sample = points[:: max(1, len(points) // 2000)]
    return float(np.median(cKDTree(points).query(sample, k=2)[0][:, 1])) * 0.62


def draw_panel(axes: Axes, picture: np.ndarray, frame: Frame) -> None:
    rows, columns = frame.size
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    glow = np.exp(-(x**2 + y**2) / 1.1)[..., None]
    back = np.array([0.055, 0.068, 0.095]) + glow * np.array([0.055, 0.068, 0.09])
    axes.imshow(picture[..., :3] * picture[..., 3:] + back * (1 - picture[..., 3:]), interpolation="bilinear")
    axes.set_axis_off()
    corner, length = np.array([columns * 0.09, rows * 0.90]), rows * 0.055
    order = sorted(AXES, key=lambda axis: -(frame.camera.rotation[2] @ axis[1]))  # the one that points to us on top
    for letter, direction, colour in order:
        right, up, _ = frame.camera.rotation @ direction
        tip = corner + length * np.array([right, -up])
        axes.annotate("", tip, corner, arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 1.8})
        reach = max(float(np.hypot(right, up)), 1e-6)
        text = (
            corner + (reach + 0.34) * length * np.array([right, -up]) / reach
        )  # a short arrow's letter clears the others
        axes.text(*text, letter, color=colour, fontsize=12, weight="bold", ha="center", va="center")
    bar = SCALE_BAR_M * frame.per_metre
    axes.plot([columns * 0.96 - bar, columns * 0.96], [rows * 0.955] * 2, color=INK, linewidth=2.2)
    axes.text(columns * 0.96 - bar / 2, rows * 0.945, "50 mm", color=INK, fontsize=9, ha="center", va="bottom")
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
