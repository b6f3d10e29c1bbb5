"""What a stream of training windows draws, and how often."""

from __future__ import annotations

from dataclasses import dataclass, field

from threedme_ros.model.config import ModelConfig

from .augment import WarpConfig
from .errors import TrainingError
from .synthesis import SynthesisConfig


@dataclass(frozen=True)
class WindowConfig:
    """What the stream draws. Shares go from 0 (never) to 1 (always).

    shapes: window shapes (D, H, W) and their weights; thin ones are for thin scans too. synthetic: share of
    synthesised images. field_of_view: share of windows with a cut-off field of view. slab: share of flat windows in
    which only slab_voxels (from, to) slices are seen. organs: share of windows in which up to three organs grow or
    shrink by organ_scale and shift by up to organ_shift_voxels. arms: share of windows with room beside the body, and
    arms there. warp: how everything is turned, scaled and bent.
    synthesis: contrasts, acquisition and artefacts.
    """

    shapes: tuple[tuple[int, int, int], ...] = ((96, 96, 96), (48, 112, 128), (112, 112, 128), (16, 176, 176))
    weights: tuple[float, ...] = (0.5, 0.25, 0.1, 0.15)
    synthetic: float = 0.5
    field_of_view: float = 0.3
    slab: float = 0.5
    slab_voxels: tuple[int, int] = (6, 40)
    organs: float = 0.5
    organ_scale: tuple[float, float] = (0.7, 1.4)
    organ_shift_voxels: float = 4.0
    arms: float = 0.15
    warp: WarpConfig = field(default_factory=WarpConfig)
    synthesis: SynthesisConfig = field(default_factory=SynthesisConfig)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shapes", tuple(tuple(int(n) for n in s) for s in self.shapes))
        object.__setattr__(self, "weights", tuple(float(w) for w in self.weights))
        object.__setattr__(self, "slab_voxels", tuple(int(n) for n in self.slab_voxels))
        object.__setattr__(self, "organ_scale", tuple(float(s) for s in self.organ_scale))
        if not self.shapes or len(self.shapes) != len(self.weights) or min(self.weights) <= 0:
            raise TrainingError(f"weights {self.weights} for shapes {self.shapes}: expected a positive one a shape")
        for shape in self.shapes:
            if len(shape) != 3 or any(n < 1 or n % ModelConfig.STRIDE for n in shape):
                raise TrainingError(f"window shape {shape}: expected three multiples of {ModelConfig.STRIDE}")
        for name in ("synthetic", "field_of_view", "slab", "organs", "arms"):
            if not 0 <= getattr(self, name) <= 1:
                raise TrainingError(f"{name} {getattr(self, name)}: expected a share from 0 to 1")
        if len(self.slab_voxels) != 2 or not 1 <= self.slab_voxels[0] <= self.slab_voxels[1]:
            raise TrainingError(f"slab_voxels {self.slab_voxels}: expected (fewest, most) slices, at least 1")
        if len(self.organ_scale) != 2 or not 0.5 <= self.organ_scale[0] <= self.organ_scale[1] <= 2:
            raise TrainingError(f"organ_scale {self.organ_scale}: expected (smallest, largest) from 0.5 to 2")
        if not 0 <= self.organ_shift_voxels <= 50:
            raise TrainingError(f"organ_shift_voxels {self.organ_shift_voxels}: expected voxels from 0 to 50")
