"""`threedme info`: what a checkpoint is."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from threedme_ros.share import DEMO_CHECKPOINT, share_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", nargs="?", help="a safetensors file (default: the shipped one)")


def run(arguments: argparse.Namespace) -> int:
    from threedme_ros.model.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(arguments.checkpoint or share_path(DEMO_CHECKPOINT))
    parameters = sum(t.numel() for t in checkpoint.weights.values())
    description = {
        "hash": checkpoint.hash,
        "parameters": parameters,
        "config": asdict(checkpoint.config),
        "preprocessing": asdict(checkpoint.preprocessing),
        "provenance": checkpoint.provenance,
        "calibration": checkpoint.calibration,
        "scope": checkpoint.scope and {k: checkpoint.scope.get(k) for k in ("threshold", "features", "fitted_on")},
        "structures": {s.id: s.name for s in checkpoint.anatomy},
    }
    print(json.dumps(description, indent=2))
    return 0
