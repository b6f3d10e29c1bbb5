"""planning.png: the ways of `threedme_ros.planning.demo` through the anatomy, and how near each comes to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from threedme_ros.anatomy import Role
from threedme_ros.pictures.figure import CAVEAT, FAINT, INK, dark_figure, heading, legend, save, spoken
from threedme_ros.pictures.interactive import Body, tube
from threedme_ros.pictures.render import Balls, Camera, Frame, Solid, render
from threedme_ros.pictures.scene import FRONT, PANEL_PIXELS, draw_panel, framed
from threedme_ros.planning.clearance import clearance_along_mm, near_distance
from threedme_ros.planning.demo import Attempt, PlanningResults
from threedme_ros.volume import MM_PER_M

WIDTH_INCHES, HEIGHT_INCHES = 16.0, 12.35
FROM_THE_RIGHT = Camera(towards=(-0.86, -0.44, -0.26))
SLICE_M, SLICE_PIXELS = 0.11, 150
REACH_M = 0.006  # the widest margin, and a little
WITH, BARE, THROUGH = "#57e08c", "#ffb547", "#ff5d5d"
CHART_MM = 20.0  # structures no way comes nearer to than this are left out of the chart
FADED = 0.45  # of the anatomy's colour, that the ways stand out
TARGET_RADIUS_M = 0.006


def planning_figure(path: Path, results: PlanningResults, *, title: str, subtitle: str = "") -> None:
    """Write a PNG: the ways from the front and from the right, a slice at the sealed target, and two charts."""
    figure = dark_figure(WIDTH_INCHES, HEIGHT_INCHES)
    side, gap, low = 0.35, 0.22, 5.15
    width = (WIDTH_INCHES - 2 * side - 2 * gap) / 3
    tall = width * PANEL_PIXELS[0] / PANEL_PIXELS[1]
    everything = np.concatenate([m.vertices for m in results.meshes.values()])
    ways = [(results.through, THROUGH), (results.bare, BARE), (results.with_margins, WITH)]
    panels = (
        ("three ways to one target, from the front", FRONT),
        ("the same, from the right", FROM_THE_RIGHT),
    )
    boxes = [
        ((side + n * (width + gap)) / WIDTH_INCHES, low / HEIGHT_INCHES, width / WIDTH_INCHES, tall / HEIGHT_INCHES)
        for n in range(3)
    ]
    for box, (name, camera) in zip(boxes, panels, strict=False):
        frame = framed(camera, everything)
        axes = figure.add_axes(box)
        draw_panel(axes, _picture(results, frame, ways), frame)
        _mark(axes, frame, results.entry_m, "entry")
        _mark(axes, frame, results.with_margins.target_m, "target")
        axes.set_title(name, color=FAINT, fontsize=11, loc="left", pad=5)
    _slice(figure.add_axes(boxes[2]), results, tall / width)
    _clearances(figure.add_axes((0.075, 1.95 / HEIGHT_INCHES, 0.50, 2.65 / HEIGHT_INCHES)), results)
    _along(figure.add_axes((0.64, 1.95 / HEIGHT_INCHES, 0.335, 2.65 / HEIGHT_INCHES)), results)
    heading(figure, title, subtitle)
    shown = [s for s in results.anatomy if s.name in results.meshes]
    corner, size = (side / WIDTH_INCHES, 0.6 / HEIGHT_INCHES), (1 - 2 * side / WIDTH_INCHES, 0.72 / HEIGHT_INCHES)
    legend(figure, shown, corner, size)
    tool = results.tool
    footer = (
        f"{_sentence(results.unreachable)}\nTool: a rigid capsule, {2e3 * tool.radius_m:g} mm thick and "
        f"{1e3 * tool.length_m:g} mm long, by OMPL RRT-Connect and Coal; clearances by VTK. {CAVEAT}."
    )
    figure.text(side / WIDTH_INCHES, 0.14 / HEIGHT_INCHES, footer, color=FAINT, fontsize=9, va="bottom")
    save(figure, path)


def _verdict(attempt: Attempt) -> str:
    return "refused, no path" if attempt.poses is None else "reached"


def _sentence(attempt: Attempt) -> str:
    reason = f": {attempt.reason}" if attempt.reason else ""
    return f"{attempt.name[:1].upper()}{attempt.name[1:]}, {_verdict(attempt)}{reason}."


def _picture(results: PlanningResults, frame: Frame, attempts: list[tuple[Attempt, str]]) -> np.ndarray:
    """RGBA of the anatomy, faded, and over it the ways as they would be seen if it were glass."""
    solids = [
        Solid(m.vertices, m.faces, np.array(results.anatomy[name].colour) / 255) for name, m in results.meshes.items()
    ]
    back = render(solids, frame)
    back[..., :3] *= FADED
    balls = [
        Balls(a.poses.tips, np.tile(_rgb(colour), (len(a.poses), 1)), results.tool.radius_m)
        for a, colour in attempts
        if a.poses is not None
    ]
    balls.append(Balls(attempts[0][0].target_m[None], np.array([_rgb(INK)]), TARGET_RADIUS_M))
    balls.append(Balls(results.entry_m[None], np.array([_rgb(INK)]), TARGET_RADIUS_M / 2))
    front = render(balls, frame)
    alpha = front[..., 3:]
    colour = front[..., :3] * alpha + back[..., :3] * back[..., 3:] * (1 - alpha)
    covered = alpha + back[..., 3:] * (1 - alpha)
    return np.dstack([colour / np.maximum(covered, 1e-6), covered])


def _rgb(colour: str) -> list[float]:
    return [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]


def _mark(axes: Axes, frame: Frame, point_m: np.ndarray, text: str) -> None:
    column, row, _ = frame.project(point_m[None])[0]
    axes.annotate(text, (column, row), (column + 26, row - 26), color=INK, fontsize=10.5, weight="bold",
                  arrowprops={"arrowstyle": "-", "color": INK, "linewidth": 1})  # fmt: skip


def _slice(axes: Axes, results: PlanningResults, aspect: float) -> None:
    """The axial plane through the second target, out of the meshes: structures, their margins, and the tool's width."""
    attempt = results.unreachable
    x = np.linspace(SLICE_M / 2, -SLICE_M / 2, SLICE_PIXELS)  # the patient's right is on the left
    y = np.linspace(-SLICE_M / 2 * aspect, SLICE_M / 2 * aspect, round(SLICE_PIXELS * aspect))
    offset = np.stack([*np.meshgrid(x, y), np.zeros((len(y), len(x)))], -1)
    points = (attempt.target_m + offset).reshape(-1, 3)
    axes.set_facecolor("#10151f")
    for structure in results.anatomy:
        mesh = results.meshes.get(structure.name)
        if mesh is None:
            continue
        distance = near_distance(mesh, points, REACH_M).reshape(offset.shape[:2]) * MM_PER_M
        colour, no_go = np.array(structure.colour) / 255, structure.role is Role.NO_GO
        axes.contourf(x, y, distance, levels=[-1e9, 0], colors=[colour], alpha=0.85 if no_go else 0.3)
        if no_go:
            axes.contourf(x, y, distance, levels=[0, structure.margin_mm], colors=[colour], alpha=0.3, hatches=["////"])
            axes.contour(x, y, distance, levels=[structure.margin_mm], colors=[colour], linewidths=1)
    around = np.linspace(0, 2 * np.pi, 60)
    axes.fill(results.tool.radius_m * np.cos(around), results.tool.radius_m * np.sin(around), color=INK, zorder=4)
    axes.annotate("target, and the tool's width", (0, 0), (0.045, -0.034), color=INK, fontsize=10.5, weight="bold",
                  zorder=5, arrowprops={"arrowstyle": "-", "color": INK, "linewidth": 1})  # fmt: skip
    axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]), xticks=[], yticks=[], aspect="equal")
    for letter, at in (("R", (0.04, 0.5)), ("L", (0.96, 0.5)), ("A", (0.5, 0.97)), ("P", (0.5, 0.03))):
        axes.text(
            *at, letter, transform=axes.transAxes, color=INK, fontsize=12, weight="bold", ha="center", va="center"
        )
    name = f"{attempt.name}, axial slice through it: {_verdict(attempt)}"
    axes.set_title(name, color=FAINT, fontsize=11, loc="left", pad=5)


def _clearances(axes: Axes, results: PlanningResults) -> None:
    """Bars: the smallest clearance to each no-go structure that any way comes near, and the margins as ticks."""
    ways = [(results.with_margins, WITH), (results.bare, BARE), (results.through, THROUGH)]
    names = [n for n in results.through.clearance_mm if min(a.clearance_mm[n] for a, _ in ways) < CHART_MM]
    _style(axes, "smallest clearance of the tool, mm (below zero: through the structure)")
    for number, (attempt, colour) in enumerate(ways):
        x = np.arange(len(names)) + (number - 1) * 0.27
        heights = [min(attempt.clearance_mm[n], CHART_MM) for n in names]
        axes.bar(x, heights, 0.25, color=colour, label=attempt.name, zorder=2)
        for at, name in zip(x, names, strict=True):
            value = attempt.clearance_mm[name]
            axes.text(at, min(value, CHART_MM) + (0.25 if value >= 0 else -0.25), f"{value:.1f}", color=INK, fontsize=8,
                      ha="center", va="bottom" if value >= 0 else "top")  # fmt: skip
    for number, name in enumerate(names):
        margin = results.anatomy[name].margin_mm
        axes.plot([number - 0.42, number + 0.42], [margin, margin], color=INK, linewidth=1.6, zorder=3,
                  label="our margin" if number == 0 else None)  # fmt: skip
    axes.axhline(0, color=FAINT, linewidth=0.8)
    axes.set_xticks(range(len(names)), [spoken(n) for n in names], color=INK, fontsize=9)
    lowest = min((a.clearance_mm[n] for a, _ in ways for n in names), default=0.0)
    axes.set_ylim(min(lowest, 0) - 2, CHART_MM * 1.28)
    axes.legend(loc="upper left", ncols=4, frameon=False, labelcolor=INK, fontsize=9)


def _along(axes: Axes, results: PlanningResults) -> None:
    """The room beyond the margin, of the tightest structure, along each way."""
    _style(axes, "room left beyond the tightest margin, mm, along the way of the tip, mm")
    no_go = [s for s in results.anatomy if s.role is Role.NO_GO and s.name in results.meshes]
    for attempt, colour in ((results.through, THROUGH), (results.bare, BARE), (results.with_margins, WITH)):
        if attempt.poses is None:
            continue
        room = np.min(
            [clearance_along_mm(attempt.poses, results.tool, results.meshes[s.name]) - s.margin_mm for s in no_go], 0
        )
        steps = np.linalg.norm(np.diff(attempt.poses.tips, axis=0), axis=1) * MM_PER_M
        axes.plot(np.concatenate([[0], np.cumsum(steps)]), np.minimum(room, CHART_MM), color=colour, linewidth=1.6)
    axes.axhline(0, color=INK, linewidth=1.2)


def _style(axes: Axes, title: str) -> None:
    axes.set_facecolor("#10151f")
    axes.set_title(title, color=FAINT, fontsize=11, loc="left", pad=6)
    axes.tick_params(colors=FAINT, labelsize=9)
    for spine in axes.spines.values():
        spine.set_color("#232b3a")


def planning_bodies(results: PlanningResults) -> list[Body]:
    """The ways as tubes of the tool's width, the entry and the targets, for the interactive view."""
    bodies = []
    for attempt, colour in ((results.with_margins, WITH), (results.bare, BARE), (results.through, THROUGH)):
        if attempt.poses is not None:
            vertices, faces = tube(attempt.poses.tips, results.tool.radius_m)
            note = f"way, {attempt.length_mm:.0f} mm"
            bodies.append(Body(attempt.name, vertices, faces, tuple(round(255 * c) for c in _rgb(colour)), note=note))
    places = (("entry", results.entry_m), ("target", results.with_margins.target_m),
              (results.unreachable.name, results.unreachable.target_m))  # fmt: skip
    for name, place in places:
        ends = place + np.array([-0.5, 0, 0.5])[:, None] * [0, 0, TARGET_RADIUS_M]
        vertices, faces = tube(ends, TARGET_RADIUS_M / 2)
        bodies.append(Body(name, vertices, faces, (232, 237, 245), note="place"))
    return bodies
