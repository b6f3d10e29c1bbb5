"""A procedural abdomen in Hounsfield units: a known answer for tests, and what the player shows without a CT.

Asymmetric on every axis, so that no flip or swap goes unseen: liver on the patient's right, spleen and stomach on the
left, spine behind, pelvis below. Shapes are ellipsoids and tubes, not anatomy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from threedme_ros.anatomy import Anatomy
from threedme_ros.share import share_path
from threedme_ros.volume import Grid, Volume

BODY_SIZE_MM = (360.0, 240.0, 420.0)
"""Of the whole phantom along R, A, S. Smaller grids see its middle, larger ones see air around it."""
AIR_HU, FAT_HU, MUSCLE_HU = -1000, -90, 45
NOISE_HU = 8.0


@dataclass(frozen=True)
class Ellipsoid:
    """Centre and radii in mm, (R, A, S), from the phantom's centre; a radius of inf makes a tube along that axis."""

    name: str
    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    hu: int


_INF = float("inf")
_ORGANS = (  # later ones lie over earlier ones
    Ellipsoid("ribs", (112, 0, 150), (8, 75, 70), 300),
    Ellipsoid("ribs", (-112, 0, 150), (8, 75, 70), 300),
    Ellipsoid("autochthon", (34, -82, 0), (20, 17, _INF), 60),
    Ellipsoid("autochthon", (-34, -82, 0), (20, 17, _INF), 60),
    Ellipsoid("iliopsoas", (42, -42, -60), (15, 15, 90), 65),
    Ellipsoid("iliopsoas", (-42, -42, -60), (15, 15, 90), 65),
    Ellipsoid("hips", (88, -30, -130), (22, 48, 60), 420),
    Ellipsoid("hips", (-88, -30, -130), (22, 48, 60), 420),
    Ellipsoid("colon", (98, 20, -30), (18, 20, 60), -20),
    Ellipsoid("colon", (-98, 10, -40), (16, 18, 70), -20),
    Ellipsoid("small_bowel", (10, 45, -60), (60, 32, 45), 25),
    Ellipsoid("urinary_bladder", (0, 35, -150), (38, 32, 28), 8),
    Ellipsoid("liver", (64, 20, 95), (58, 68, 62), 110),
    Ellipsoid("stomach", (-50, 42, 85), (32, 30, 44), 20),
    Ellipsoid("spleen", (-88, -38, 92), (22, 34, 36), 130),
    Ellipsoid("pancreas", (-8, 12, 42), (48, 13, 11), 85),
    Ellipsoid("kidney_right", (62, -50, 12), (23, 24, 44), 170),
    Ellipsoid("kidney_left", (-62, -50, 28), (23, 24, 44), 170),
    Ellipsoid("aorta", (-10, -22, 0), (9, 9, _INF), 260),
    Ellipsoid("inferior_vena_cava", (16, -20, 0), (11, 9, _INF), 190),
    Ellipsoid("vertebrae", (0, -55, 0), (21, 20, _INF), 380),
)


def phantom(
    shape: tuple[int, int, int] = (96, 80, 64),
    spacing_mm: tuple[float, float, float] = (4.0, 3.5, 6.0),
    *,
    anatomy: Anatomy | None = None,
    seed: int = 0,
) -> tuple[Volume, Volume]:
    """The phantom on a RAS+ grid of ``shape`` (R, A, S), centred on the frame's origin; see `phantom_on`."""
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = -(np.array(shape) - 1) / 2 * spacing_mm
    return phantom_on(Grid(shape, affine), anatomy=anatomy, seed=seed)


def phantom_on(
    grid: Grid,
    *,
    centre_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
    anatomy: Anatomy | None = None,
    frame_id: str = "patient",
    seed: int = 0,
) -> tuple[Volume, Volume]:
    """Image (int16, HU) and labels (uint8, ids of ``anatomy``, default config/anatomy.yaml) sampled on any ``grid``.

    ``centre_mm``: where the phantom's centre lies, RAS+ mm. Structures that ``anatomy`` lacks stay in the image only.
    """
    anatomy = anatomy or Anatomy.from_yaml(share_path("config/anatomy.yaml"))
    axes = np.ogrid[tuple(slice(n) for n in grid.shape)]
    linear, start = grid.affine[:3, :3], grid.affine[:3, 3] - centre_mm
    x, y, z = (  # on a straight grid each varies along one axis only, and stays that small
        sum(linear[row, axis] * axes[axis] for axis in range(3) if linear[row, axis]) + start[row] for row in range(3)
    )

    def inside(centre: tuple[float, ...], radii: tuple[float, ...]) -> np.ndarray:
        terms = (((p - c) / r) ** 2 for p, c, r in zip((x, y, z), centre, radii, strict=True))
        return sum(terms) <= 1.0

    half = np.array(BODY_SIZE_MM) / 2
    trunk = np.abs(z) <= half[2]
    image = np.full(grid.shape, AIR_HU, np.int16)
    image[inside((0, 0, 0), (half[0], half[1], _INF)) & trunk] = FAT_HU
    image[inside((0, 0, 0), (half[0] - 20, half[1] - 14, _INF)) & trunk] = MUSCLE_HU
    labels = np.zeros(grid.shape, np.uint8)
    for organ in _ORGANS:
        where = inside(organ.centre, organ.radii) & trunk
        image[where] = organ.hu
        labels[where] = anatomy[organ.name].id if organ.name in anatomy else 0
    noise = np.random.default_rng(seed).normal(0, NOISE_HU, grid.shape)
    image += noise.astype(np.int16)
    return Volume(image, grid.affine, frame_id), Volume(labels, grid.affine, frame_id)
