"""overlay.png: three planes of the volume with its labels, a legend, orientation letters and a scale bar."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from scipy.ndimage import gaussian_filter

from threedme_ros.anatomy import Anatomy, Structure
from threedme_ros.pictures.planes import Plane, grey, grey_window, telling_voxel, three_planes
from threedme_ros.volume import Volume

WIDTH_INCHES = 16.0
DPI = 130
DARK = "#0b0e14"
INK = "#e8edf5"
FAINT = "#8b96a8"
CAVEAT = "Demonstration only, not for clinical use"
FINE_MM = 1.0  # contours are drawn on pixels of this size: finer only takes longer
SCALE_BAR_MM = 50.0


def overlay_figure(
    path: Path, volume: Volume, labels: Volume, anatomy: Anatomy, *, title: str, subtitle: str = ""
) -> None:
    """Write a PNG of the three planes that show most structures. labels: uint8 on the volume's grid.

    Radiological convention: the patient's right is on the left of the axial and coronal planes.
    """
    marked, _ = labels.reoriented("RAS")
    planes = three_planes(volume, labels, telling_voxel(marked.voxels))
    window = grey_window(planes)
    height_mm, width_mm = max(p.size_mm[0] for p in planes), sum(p.size_mm[1] for p in planes)
    shown = [s for s in anatomy if (labels.voxels == s.id).any()]

    side, gap, top, bottom = 0.35, 0.22, 1.15, 1.5  # inches around and between the planes
    scale = (WIDTH_INCHES - 2 * side - 2 * gap) / width_mm
    height = height_mm * scale + top + bottom
    figure = dark_figure(WIDTH_INCHES, height)
    left = side
    for plane in planes:
        rows, columns = (mm * scale for mm in plane.size_mm)
        low = bottom + (height_mm * scale - rows) / 2
        axes = figure.add_axes((left / WIDTH_INCHES, low / height, columns / WIDTH_INCHES, rows / height))
        _draw_plane(axes, plane, window, shown)
        left += columns + gap
    heading(figure, title, subtitle)
    legend(figure, shown, (side / WIDTH_INCHES, 0.5 / height), (1 - 2 * side / WIDTH_INCHES, 0.72 / height))
    footer = f"Radiological convention: the patient's right is on the left.   {CAVEAT}."
    figure.text(side / WIDTH_INCHES, 0.18 / height, footer, color=FAINT, fontsize=9, va="bottom")
    save(figure, path)


def _draw_plane(axes: Axes, plane: Plane, window: tuple[float, float], shown: list[Structure]) -> None:
    rows, columns = plane.pixels_at(FINE_MM)
    axes.imshow(grey(plane, window, (rows, columns)), cmap="gray", vmin=0, vmax=255, interpolation="bilinear")
    for structure in shown:
        mask = plane.labels == structure.id
        if not mask.any():
            continue
        share = Image.fromarray(mask.astype(np.float32)).resize((columns, rows), Image.Resampling.BICUBIC)
        smooth = gaussian_filter(np.asarray(share), max(plane.pixel_mm) / FINE_MM * 0.45)
        colour = np.array(structure.colour) / 255
        axes.contourf(smooth, levels=[0.5, 9.0], colors=[colour], alpha=0.30)
        axes.contour(smooth, levels=[0.5], colors=[colour], linewidths=1.3)
    axes.set_axis_off()
    axes.add_patch(Rectangle((0, 0), 1, 1, transform=axes.transAxes, fill=False, edgecolor="#2a3140", linewidth=1))
    box = {"boxstyle": "circle,pad=0.22", "facecolor": "#000000", "edgecolor": "none", "alpha": 0.55}
    at_edges = ((0.5, 0.965), (0.5, 0.035), (0.025, 0.5), (0.975, 0.5))
    for letter, (x, y) in zip(plane.letters, at_edges, strict=True):
        axes.text(x, y, letter, transform=axes.transAxes, color=INK, fontsize=12, weight="bold",
                  ha="center", va="center", bbox=box)  # fmt: skip
    axes.set_title(plane.name, color=FAINT, fontsize=11, loc="left", pad=5)
    bar = SCALE_BAR_MM / plane.size_mm[1]
    if bar < 0.5:
        low = 0.035
        axes.plot([0.97 - bar, 0.97], [low, low], transform=axes.transAxes, color=INK, linewidth=2.2,
                  solid_capstyle="butt")  # fmt: skip
        axes.text(0.97 - bar / 2, low + 0.012, f"{SCALE_BAR_MM:.0f} mm", transform=axes.transAxes, color=INK,
                  fontsize=9, ha="center", va="bottom")  # fmt: skip


def dark_figure(width: float, height: float) -> Figure:
    figure = Figure((width, height), dpi=DPI, facecolor=DARK)
    FigureCanvasAgg(figure)
    return figure


def heading(figure: Figure, title: str, subtitle: str) -> None:
    width, height = figure.get_size_inches()
    figure.text(0.35 / width, 1 - 0.24 / height, title, color=INK, fontsize=17, weight="bold", va="top")
    figure.text(0.35 / width, 1 - 0.58 / height, subtitle, color=FAINT, fontsize=10.5, va="top")


def legend(
    figure: Figure, shown: list[Structure], corner: tuple[float, float], size: tuple[float, float], columns: int = 8
) -> None:
    """Swatches and names in ``columns`` columns; corner, size: lower left, width and height in figure fractions."""
    axes = figure.add_axes((*corner, *size))
    axes.set_axis_off()
    axes.set(xlim=(0, columns), ylim=(0, max(2, -(-len(shown) // columns))))
    for number, structure in enumerate(shown):
        row, column = divmod(number, columns)
        y = axes.get_ylim()[1] - row - 0.5
        axes.plot(column + 0.06, y, "o", color=np.array(structure.colour) / 255, markersize=11)
        axes.text(column + 0.15, y, spoken(structure.name), color=INK, fontsize=11, va="center")


def spoken(name: str) -> str:
    """``kidney_right`` -> ``right kidney``, ``small_bowel`` -> ``small bowel``."""
    words = name.split("_")
    if words[-1] in ("left", "right"):
        words = [words[-1], *words[:-1]]
    return " ".join(words)


def save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, facecolor=figure.get_facecolor())
