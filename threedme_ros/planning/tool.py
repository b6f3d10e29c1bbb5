"""The tool that is planned for, and where it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Tool:
    """A rigid capsule: everything within ``radius_m`` of the segment of ``length_m`` that ends at the tip."""

    radius_m: float = 0.0025
    length_m: float = 0.020

    def __post_init__(self) -> None:
        for name in ("radius_m", "length_m"):
            if not getattr(self, name) > 0:
                raise ValueError(f"tool {name} {getattr(self, name)!r}: expected a positive length in metres")


@dataclass(frozen=True, eq=False)
class Poses:
    """``tips`` (N, 3) m, and ``axes`` (N, 3), the unit vectors from the tool's tail to its tip."""

    tips: np.ndarray
    axes: np.ndarray

    def __len__(self) -> int:
        return len(self.tips)

    @classmethod
    def one(cls, tip: np.ndarray, axis: np.ndarray) -> Poses:
        axis = np.asarray(axis, float)
        return cls(np.asarray(tip, float)[None], axis[None] / np.linalg.norm(axis))

    @property
    def length_m(self) -> float:
        """The way of the tip."""
        return float(np.linalg.norm(np.diff(self.tips, axis=0), axis=1).sum())

    def spine(self, tool: Tool, step_m: float = 0.0005) -> np.ndarray:
        """Points (N, S, 3) m along the tool's segment, at most ``step_m`` apart, tip first."""
        along = np.linspace(0.0, tool.length_m, int(np.ceil(tool.length_m / step_m)) + 1)
        return self.tips[:, None] - along[:, None] * self.axes[:, None]


def directions(count: int) -> np.ndarray:
    """(count, 3) unit vectors spread evenly over the sphere: a Fibonacci spiral."""
    z = 1 - 2 * (np.arange(count) + 0.5) / count
    turn = np.pi * (3 - np.sqrt(5)) * np.arange(count)
    flat = np.sqrt(1 - z**2)
    return np.stack([flat * np.cos(turn), flat * np.sin(turn), z], 1)


def rotation_to(axis: np.ndarray) -> np.ndarray:
    """A rotation (3, 3) that turns z into ``axis`` (3,)."""
    z = np.asarray(axis, float) / np.linalg.norm(axis)
    aside = np.eye(3)[np.argmin(np.abs(z))]
    x = np.cross(aside, z)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], 1)
