"""A picture of each corruption: the slice at every strength, the truth's contours above, what was found below."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from threedme_ros.anatomy import Anatomy
from threedme_ros.inference.segmenter import Segmentation
from threedme_ros.pictures.overlay import BACKGROUND, FILL, LETTER, panel
from threedme_ros.pictures.planes import grey_window, telling_voxel, three_planes
from threedme_ros.volume import Volume

from .labelled import Labelled
from .run import RobustnessScore
from .suite import CORRUPTIONS

PANEL_PIXELS = 230
"""The longest side of a slice of the clean volume; the others have its scale."""

GAP, LINE = 8, 20
PLANES = ("axial", "coronal", "sagittal")


class Gallery:
    """Collects the panels of a run through `robustness`'s ``watch``, of a few slices each, and draws them."""

    def __init__(self, anatomy: Anatomy) -> None:
        self._colours = anatomy.colour_map()
        self._plane = {c.name: c.plane for c in CORRUPTIONS}
        self._at_mm: np.ndarray | None = None
        self._window = (0.0, 1.0)
        self._mm_per_pixel = 1.0
        self._clean: dict[str, _Panel] = {}
        self._panels: dict[str, list[_Panel]] = {}

    def add(self, score: RobustnessScore, case: Labelled, found: Segmentation) -> None:
        """The clean volume first: it sets the place, the grey window and the scale of all others."""
        if self._at_mm is None:
            truth, _ = case.truth.reoriented("RAS")
            self._at_mm = truth.grid.to_mm(np.array([telling_voxel(truth.voxels)]))
            planes = three_planes(case.image, case.truth)
            self._window = grey_window(planes)
            self._mm_per_pixel = max(max(p.size_mm) for p in planes) / PANEL_PIXELS
            self._clean = {plane: self._panel(plane, "clean", score, case, found) for plane in PLANES}
            return
        drawn = self._panel(self._plane[score.corruption], score.spoken, score, case, found)
        self._panels.setdefault(score.corruption, []).append(drawn)

    def _panel(self, plane: str, caption: str, score: RobustnessScore, case: Labelled, found: Segmentation) -> _Panel:
        grid = case.image.reoriented("RAS")[0].grid
        at = np.clip(np.rint(grid.to_index(self._at_mm)[0]).astype(int), 0, np.array(grid.shape) - 1)
        number = PLANES.index(plane)

        def draw(labels: Volume, fill: float) -> np.ndarray:
            cut = three_planes(case.image, labels, tuple(at))[number]
            return panel(cut, self._window, self._colours, cut.pixels_at(self._mm_per_pixel), fill)

        text = (caption, f"Dice {score.mean_dice:.3f}")
        return _Panel(draw(case.truth, 0.0), draw(found.labels, FILL), text)

    def picture(self, corruption: str) -> Image.Image:
        """The clean slice and every strength of ``corruption``, side by side."""
        return _row([self._clean[self._plane[corruption]], *self._panels[corruption]], corruption)

    def montage(self) -> Image.Image:
        """All corruptions, one below another, what was found only."""
        rows = [
            _row([self._clean[self._plane[name]], *panels], name, truth=False) for name, panels in self._panels.items()
        ]
        canvas = Image.new("RGB", (max(r.width for r in rows), sum(r.height for r in rows)), BACKGROUND)
        top = 0
        for row in rows:
            canvas.paste(row, (0, top))
            top += row.height
        return canvas

    def save(self, folder: Path) -> list[Path]:
        """``folder``/CORRUPTION.png for each, and all.png."""
        folder.mkdir(parents=True, exist_ok=True)
        pictures = {name.replace(" ", "_"): self.picture(name) for name in self._panels} | {"all": self.montage()}
        paths = []
        for name, picture in pictures.items():
            paths.append(folder / f"{name}.png")
            picture.save(paths[-1])
        return paths


@dataclass(frozen=True, eq=False)
class _Panel:
    """Two pictures (rows, columns, 3) uint8 of one size, and the lines below them."""

    truth: np.ndarray
    found: np.ndarray
    text: tuple[str, ...]


def _row(panels: list[_Panel], title: str, truth: bool = True) -> Image.Image:
    font = ImageFont.load_default(13)
    rows = [[p.truth for p in panels], [p.found for p in panels]][0 if truth else 1 :]
    width = max(PANEL_PIXELS, *(p.found.shape[1] for p in panels))
    height = max(p.found.shape[0] for p in panels)
    size = (GAP + len(panels) * (width + GAP), GAP + LINE + len(rows) * (height + GAP) + 2 * LINE)
    canvas = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    draw.text((GAP, GAP), title, LETTER, font)
    for column, shown in enumerate(panels):
        left = GAP + column * (width + GAP)
        for row, pictures in enumerate(rows):
            picture = pictures[column]
            top = GAP + LINE + row * (height + GAP) + (height - picture.shape[0]) // 2
            canvas.paste(Image.fromarray(picture), (left + (width - picture.shape[1]) // 2, top))
        for line, text in enumerate(shown.text):
            top = GAP + LINE + len(rows) * (height + GAP) + line * LINE
            draw.text((left + width // 2, top), text, LETTER, font, "mt")
    return canvas
