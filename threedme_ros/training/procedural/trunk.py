"""The frame of the body: outline, fat, muscle wall, the cavity, the diaphragm, lungs and heart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .canvas import Canvas, Shape

# z, shell half width, front, back; cavity half width, front, back. The shell is the outside of the muscle wall.
PROFILE = np.array(
    [
        (-210, 165, 72, 80, 1, 1, 1),
        (-150, 170, 82, 92, 1, 1, 1),
        (-128, 170, 85, 97, 12, 12, 20),
        (-110, 170, 88, 100, 40, 42, 52),
        (-75, 167, 96, 102, 60, 76, 66),
        (-40, 160, 104, 98, 70, 92, 68),
        (0, 150, 114, 90, 102, 103, 45),
        (40, 142, 118, 80, 129, 109, 45),
        (80, 137, 120, 78, 127, 111, 50),
        (120, 136, 121, 76, 126, 112, 58),
        (160, 139, 121, 76, 127, 112, 62),
        (200, 144, 121, 77, 132, 111, 66),
        (250, 149, 118, 78, 135, 105, 68),
        (300, 149, 111, 78, 135, 98, 68),
        (350, 145, 101, 76, 130, 88, 66),
        (420, 135, 85, 74, 118, 72, 62),
    ],
    np.float64,
)


@dataclass(frozen=True)
class Habitus:
    """How this body differs from the standard one.

    girth: shell and cavity, relative. depth: the front of both, relative. fat_mm: under the skin of the belly.
    hips: fat about the hips, relative. male: a prostate, no uterus. arms: by the sides.
    rise_mm: how far the diaphragm, and the organs that follow the breath, are above the usual.
    pelvis: how much longer than the standard one everything below the sacral end plate is.
    visceral: share of fat between the organs, 0 to 1.
    """

    girth: float
    depth: float
    fat_mm: float
    hips: float
    male: bool
    arms: bool
    rise_mm: float
    pelvis: float
    visceral: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Habitus:
        fat = rng.uniform(0, 1) ** 1.5
        return cls(
            girth=float(rng.uniform(0.93, 1.06) + 0.08 * fat),
            depth=float(rng.uniform(0.82, 1.05) + 0.25 * fat),
            fat_mm=float(4 + 38 * fat),
            hips=float(rng.uniform(0.8, 1.5)),
            male=bool(rng.random() < 0.5),
            arms=bool(rng.random() < 0.25),
            rise_mm=float(rng.normal(-16, 13)),
            pelvis=float(rng.uniform(1.0, 1.3)),
            visceral=float(np.clip(0.6 * fat + rng.uniform(-0.1, 0.4), 0, 1)),
        )


class Trunk:
    """Distances (D, H, W) float32 in mm that later organs lean on; negative inside.

    shell: outside of the muscle wall. cavity: inside of it. dome: below the diaphragm. abdomen: cavity below the dome.
    """

    def __init__(self, canvas: Canvas, habitus: Habitus) -> None:
        self.habitus = habitus
        self.profile = self._profile(canvas.rng)
        boxy = float(canvas.rng.uniform(-0.15, 0.35))
        furrow = float(canvas.rng.uniform(2, 12))
        self.shell = self._section(canvas, 1, 2.25 + boxy)
        along = np.exp(-((canvas.x / 16) ** 2) - ((canvas.z - 60) / 130) ** 2)
        self.shell += furrow * along * (canvas.y < 0)
        self.cavity = self._section(canvas, 4, 2.2 + boxy)
        self.dome = self._dome(canvas)
        self.abdomen = np.maximum(self.cavity, self.dome)

    def _profile(self, rng: np.random.Generator) -> np.ndarray:
        profile = PROFILE.copy()
        h, belly = self.habitus, np.clip(1 - np.abs(profile[:, 0] - 90) / 190, 0, 1)
        jitter = np.interp(profile[:, 0], [-210, -75, 40, 140, 300, 420], rng.normal(0, 0.02, 6))
        # below the crest the cavity is held by the pelvis, so the belly's girth counts only above
        held = np.interp(profile[:, 0], [-75, 20], [0.15, 1.0])
        profile[:, 1] *= h.girth + jitter
        profile[:, 4] *= 1 + (h.girth - 1 + jitter) * held
        for column in (2, 5):
            profile[:, column] *= 1 + (h.depth - 1) * (0.4 + 0.6 * belly)
        return profile

    def at(self, z: np.ndarray | float, column: int) -> np.ndarray:
        return np.interp(z, self.profile[:, 0], self.profile[:, column])

    def _section(self, canvas: Canvas, column: int, power: float) -> np.ndarray:
        a, front, back = (self.at(canvas.z, c).astype(np.float32) for c in range(column, column + 3))
        y = canvas.y - (front - back) / 2
        u, v = np.abs(canvas.x / a), np.abs(y * 2 / (front + back))
        round_front = np.maximum(u**power + v**power, 1e-6) ** (1 / power)
        flat_back = np.maximum(u ** (power + 0.7) + v ** (power + 0.7), 1e-6) ** (1 / (power + 0.7))
        unit = np.where(y > 0, round_front, flat_back)
        return np.hypot(canvas.x, y) * (1 - 1 / unit)

    def _dome(self, canvas: Canvas) -> np.ndarray:
        """Below the diaphragm: two domes, the right one higher, that meet the wall lower behind than in front."""
        power, recess = canvas.rng.uniform(1.1, 2.2), canvas.rng.normal(12, 15)
        x, y, z = canvas.x, canvas.y, canvas.z
        a, front, back = (float(self.at(260, c)) for c in (4, 5, 6))
        middle = (front - back) / 2
        v = (y - middle) * 2 / (front + back)
        radius = np.minimum((np.abs(x) / a) ** 2 + v**2, 1)
        edge = 212 + recess + 38 * np.clip(v, 0, 1) - 28 * np.clip(-v, 0, 1)
        right = np.exp(-(((x - 72) / 62) ** 2) - ((y - 25) / 90) ** 2)
        left = np.exp(-(((x + 76) / 58) ** 2) - ((y - 20) / 90) ** 2)
        rise = self.habitus.rise_mm
        top = 268 + rise + 34 * right + 20 * left
        height = edge + (top - edge) * (1 - radius**power)
        return (z - height + 2.5 * canvas.noise(canvas.whole())).astype(np.float32)

    def wall(self, box: tuple[slice, slice, slice], thickness: float) -> np.ndarray:
        """Distance: inside the cavity and at least ``thickness`` mm from its wall."""
        return self.cavity[box] + thickness


def paint_frame(canvas: Canvas, trunk: Trunk) -> None:
    """Skin, fat under it, muscle wall, fat in the cavity, lungs, diaphragm, heart."""
    h, z, y, box = trunk.habitus, canvas.z, canvas.y, canvas.whole()
    hips = np.exp(-(((z + 60) / 110) ** 2)) * (h.hips - 0.5)
    behind = np.clip(-y / 80, 0, 1)
    chest = np.clip((z - 190) / 120, 0, 1)
    fat = h.fat_mm * (0.75 + 0.5 * hips + 0.35 * behind - 0.45 * chest) * (1 + 0.07 * canvas.noise(box)) + 2
    skin = trunk.shell - np.maximum(fat, 3)
    tissue, name = canvas.tissue, canvas.palette
    tissue[skin < 0] = name["skin"]
    tissue[skin < -2.5] = name["fat"]
    flesh = trunk.shell + 1.5 * canvas.noise(box, fine=True) < 0
    tissue[flesh & (skin < -2.5)] = name["muscle"]
    seams = flesh & (np.abs(canvas.noise(box, fine=True)) < 0.07 + 0.06 * h.visceral) & (trunk.shell > -30)
    tissue[seams & (skin < -2.5)] = name["fat"]
    between = (np.abs(canvas.x) < 6 + 0.35 * np.clip(-130 - z, 0, None)) & (z < -122) & (skin < -2.5)
    tissue[between] = name["fat"]
    tissue[(trunk.cavity < 0) & (skin < -2.5)] = name["visceral fat"]
    _paint_chest(canvas, trunk)
    if h.arms:
        _paint_arms(canvas, trunk)


def _paint_chest(canvas: Canvas, trunk: Trunk) -> None:
    box = canvas.box((-150, -80, 150), (150, 140, 600))
    x, y, z = canvas.x[box], canvas.y[box], canvas.z[box]
    dome, cavity = trunk.dome[box], trunk.cavity[box]
    spine = 1 - np.hypot(x / 34, (y + 10) / 44)
    # mediastinum: the spine and its vessels, and a front that widens to the heart
    middle = np.abs(x + 4) < 14 + 10 * np.clip((y - 10) / 60, 0, 1)
    lung = (cavity < -2) & (dome > 2.5) & (spine < 0) & ~middle
    paint = canvas.tissue[box]
    paint[lung] = canvas.palette["lung"]
    paint[lung & (np.abs(canvas.noise(box, fine=True)) < 0.06)] = canvas.palette["lung vessel"]
    paint[(cavity < 1) & (dome > -1.5) & (dome < 2.5) & (spine < 0)] = canvas.palette["diaphragm"]
    crus = (np.abs(np.abs(x) - 14) < 5) & (np.abs(y - 16) < 7) & (z < 262) & (z > 95)
    paint[crus & (dome < 3)] = canvas.palette["diaphragm"]
    rng = canvas.rng
    centre = (-18 + rng.normal(0, 6), 62 * trunk.habitus.depth + rng.normal(0, 4), 312 + trunk.habitus.rise_mm)
    heart = canvas.ellipsoid(centre, (58, 44, 44) * rng.uniform(0.9, 1.12, 3), (0, 25, -35), rough=3)
    above = Shape(
        heart.box, np.maximum(heart.distance, np.maximum(4 - trunk.dome[heart.box], trunk.wall(heart.box, 3)))
    )
    canvas.paint("heart wall", above)
    canvas.paint("heart blood", Shape(above.box, above.distance + 9 + 3 * canvas.noise(above.box)))


def _paint_arms(canvas: Canvas, trunk: Trunk) -> None:
    """Beside the body, where there is air: the upper arm above the waist, the forearm with its two bones below."""
    rng, fat = canvas.rng, 3 + 0.35 * trunk.habitus.fat_mm
    for side in (-1, 1):
        aside = trunk.habitus.fat_mm + rng.uniform(44, 62)
        front, out = rng.normal(0, 15, 2), rng.uniform(-4, 18)
        size = rng.uniform(0.85, 1.15)
        rows = []
        for z, radius in ((-400, 26), (-120, 26), (0, 36), (90, 38), (150, 36), (260, 44), (700, 48)):
            at = side * (float(trunk.at(z, 1)) + aside + out * (90 - z) / 200)
            rows.append((z, at, np.clip(front[0] + front[1] * (z - 90) / 200, -45, 60), size * radius, size * radius))
        arm = canvas.column(rows, rough=2)
        air = canvas.is_any(arm.box, "air")
        for name, depth in (("skin", 0.0), ("fat", 2.5), ("muscle", 2.5 + fat)):
            canvas.paint(name, Shape(arm.box, arm.distance + depth), air)
        for turn in (-13, 13):
            bone = [(z, x + turn * (z < 90), y + 0.3 * turn * (z < 90), 9, 9) for z, x, y, *_ in rows]
            rod = canvas.column(bone)
            free = canvas.is_any(rod.box, "muscle") & (np.abs(canvas.x[rod.box]) > float(trunk.at(90, 1)) + 8)
            canvas.paint("cortical bone", rod, free)
            canvas.paint("trabecular bone", Shape(rod.box, rod.distance + 4), canvas.is_any(rod.box, "cortical bone"))
