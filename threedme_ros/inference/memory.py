"""How large a window fits in memory, estimated before anything is allocated."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from threedme_ros.inference.engines import Engine

if TYPE_CHECKING:
    from threedme_ros.model.config import ModelConfig

BYTES_PER_VOXEL = {
    ("openvino", "bf16"): 180, ("openvino", "fp32"): 300, ("onnxruntime", "fp32"): 450,
    ("torch", "fp32"): 250, ("torch", "bf16"): 260, ("torch", "fp16"): 260,
}  # fmt: skip
"""Working memory of the `small` network a voxel of its window, from the growth between 128^3 and 256 x 256 x 128."""

OTHERS = 450
SMALL_CHANNELS = 32
"""Channels of the finest level of `small`, which the memory follows."""

SHARE = 0.6
"""Of the memory that is available: volumes, results and other programs need some, too."""


def affordable_voxels(engine: Engine, config: ModelConfig, available: float | None = None) -> int:
    """The voxels of the largest window that ``engine`` can run in ``available`` bytes (None: what is free now)."""
    if available is None:
        available = available_bytes(engine.device)
    bytes_per_voxel = BYTES_PER_VOXEL.get((engine.name, engine.precision), OTHERS)
    voxels = SHARE * available / (bytes_per_voxel * config.channels[0] / SMALL_CHANNELS)
    return int(min(voxels, sys.maxsize))


def available_bytes(device: str) -> float:
    """Free memory of ``device``: on a GPU what its driver says; else what Linux can give, within a container's limit;
    infinite where nobody says."""
    if device.startswith("cuda"):
        return float(torch.cuda.mem_get_info(torch.device(device))[0])
    free = [float("inf")]
    with suppress(OSError):  # another system, or no descriptor left
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free.append(float(line.split()[1]) * 1024)
    limit, used = (_number(Path("/sys/fs/cgroup") / name) for name in ("memory.max", "memory.current"))
    if limit is not None and used is not None:
        free.append(limit - used)
    return min(free)


def _number(path: Path) -> float | None:
    """The number in a file of the kernel's; None for "max", and where there is none."""
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return None
