"""`threedme segment`: one volume, without ROS."""

from __future__ import annotations

import argparse
from pathlib import Path

from threedme_ros.share import DEMO_CHECKPOINT, share_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("volume", help=".nii, .nii.gz, .nrrd, .mha, .mhd, or a folder with one DICOM series")
    parser.add_argument("output", type=Path, help="the label volume to write, .nii.gz or .nrrd, on the input's grid")
    parser.add_argument("--confidence", type=Path, help="also write the confidence, uint8 0..255")
    parser.add_argument("--checkpoint", help="a safetensors file (default: the shipped one)")
    parser.add_argument(
        "--engine", default="auto", help="auto, or what to try first: tensorrt, openvino, onnxruntime, torch"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--modality", default="auto", choices=("auto", "ct", "other"), help="how intensities are read")


def run(arguments: argparse.Namespace) -> int:
    import numpy as np

    from threedme_ros.inference.segmenter import Segmenter
    from threedme_ros.model.checkpoint import load_checkpoint
    from threedme_ros.volume_io import read_volume, write_volume

    volume = read_volume(arguments.volume)
    checkpoint = load_checkpoint(arguments.checkpoint or share_path(DEMO_CHECKPOINT))
    segmenter = Segmenter(checkpoint, engine=arguments.engine, device=arguments.device, modality=arguments.modality)
    result = segmenter.segment(volume)
    segmenter.close()
    for warning in result.warnings:
        print(f"warning: {warning}")
    write_volume(arguments.output, result.labels)
    if arguments.confidence:
        write_volume(arguments.confidence, result.confidence)
    counts = np.bincount(result.labels.voxels.ravel(order="K"), minlength=256)
    for structure in checkpoint.anatomy:
        if counts[structure.id]:
            print(f"{structure.name:20} {counts[structure.id] * volume.grid.voxel_volume_ml:10.1f} ml")
    print(f"{arguments.output}: {result.timings_s['total']:.2f} s, checkpoint {checkpoint.hash}")
    return 0
