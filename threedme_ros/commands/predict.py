"""`threedme predict`: a whole cohort, on one machine or many."""

from __future__ import annotations

import argparse
from pathlib import Path

from threedme_ros.share import DEMO_CHECKPOINT, share_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="volume files and DICOM folders, at any depth")
    parser.add_argument("--output", type=Path, required=True, help="labels/, cases/, predict.json and predict.csv")
    parser.add_argument("--checkpoint", help="a safetensors file (default: the shipped one)")
    parser.add_argument("--foundation", help="with --adapter: the foundation it belongs to")
    parser.add_argument("--adapter", help="instead of a checkpoint")
    parser.add_argument(
        "--engine", default="auto", help="auto, or what to try first: tensorrt, openvino, onnxruntime, torch"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda (one GPU a process of a machine), or cuda:N")
    parser.add_argument("--modality", choices=("auto", "ct", "other"), help="default: as the checkpoint was trained")
    parser.add_argument("--exclude", nargs="*", help="name patterns to pass over (default: label files and folders)")
    parser.add_argument("--skip-bad-cases", action="store_true", help="list and leave out what cannot be segmented")


def run(arguments: argparse.Namespace) -> int:
    import os

    from tqdm import tqdm

    from threedme_ros.inference.cohort import group_channels, segment_cohort, shard_from_environment
    from threedme_ros.inference.engines import EngineError
    from threedme_ros.inference.segmenter import Segmenter
    from threedme_ros.model.checkpoint import Checkpoint, CheckpointError
    from threedme_ros.model.trained import channels_of, load_trained, modalities_of
    from threedme_ros.training.volume_cache import LABEL_FOLDERS, find_volumes

    shard = shard_from_environment(os.environ)
    path = None if arguments.adapter else arguments.checkpoint or share_path(DEMO_CHECKPOINT)
    trained = load_trained(path, foundation=arguments.foundation, adapter=arguments.adapter)
    if not isinstance(trained, Checkpoint):
        raise CheckpointError(f"{path or arguments.adapter}: a classifier; expected a segmentation checkpoint")
    exclude = LABEL_FOLDERS if arguments.exclude is None else arguments.exclude
    found = find_volumes(arguments.folder, exclude, to_train_on=False)
    output = arguments.output.resolve()
    found = {
        path.resolve().name if name == "." else name: path  # the folder itself is one DICOM series
        for name, path in found.items()
        if output not in path.resolve().parents
    }
    cases = group_channels(found, channels_of(trained))
    device = f"cuda:{shard.local_rank}" if arguments.device == "cuda" else arguments.device
    modality = arguments.modality or modalities_of(trained)
    try:
        segmenter = Segmenter(trained, engine=arguments.engine, device=device, modality=modality)
    except EngineError as error:
        raise ValueError(str(error)) from error
    try:
        report = segment_cohort(
            cases,
            segmenter,
            arguments.output,
            shard=shard,
            skip_bad_cases=arguments.skip_bad_cases,
            progress=lambda items, total: tqdm(items, total=total, unit="case", disable=shard.rank > 0),
        )
    finally:
        segmenter.close()
    if shard.rank == 0:
        for case in report["failed"]:
            print(f"failed {case['name']}: {case['reason']}")
    print(
        f"{arguments.output}: {report['done']} of {report['cases']} cases done, {len(report['failed'])} failed, "
        f"{report['left']} left (process {shard.rank} of {shard.ranks})"
    )
    return 0
