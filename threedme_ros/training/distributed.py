"""Lightning Fabric, set up from whatever launched this process: nothing, torchrun, `fabric run`, or SLURM."""

from __future__ import annotations

import atexit
import os
from typing import TYPE_CHECKING

import torch.distributed

if TYPE_CHECKING:
    from lightning.fabric import Fabric

FABRIC_PRECISION = {"bf16": "bf16-mixed", "fp32": "32-true"}


def launch_fabric(precision: str, accelerator: str = "auto", devices: int | None = None, nodes: int = 1) -> Fabric:
    """A launched Fabric. precision: "bf16" (mixed) or "fp32". devices: processes a node.

    Under torchrun the numbers come from its environment, under `fabric run` from its flags; under SLURM they must be
    those of srun. Otherwise ``devices`` above 1 starts the other processes on this machine.
    """
    try:
        from lightning.fabric import Fabric
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error.name} is needed to train: pip install 'threedme_ros[train]'") from error
    if os.environ.get("LT_CLI_USED"):  # `fabric run` has set the accelerator, strategy, devices and nodes, and launched
        return Fabric(precision=FABRIC_PRECISION[precision])
    devices = int(os.environ.get("LOCAL_WORLD_SIZE", devices or 1))
    nodes = int(os.environ.get("GROUP_WORLD_SIZE", nodes))
    fabric = Fabric(
        accelerator=accelerator,
        strategy="ddp" if devices * nodes > 1 else "auto",
        devices=devices,
        num_nodes=nodes,
        precision=FABRIC_PRECISION[precision],
    )
    fabric.launch()
    atexit.register(_leave_group)
    return fabric


def _leave_group() -> None:
    """Join the threads of the process group: gloo's abort a process that ends while they run, now and then."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
