"""`threedme demo-planning`: a rigid tool planned around patient A's meshes, with margins, without, and through."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

PICTURE, FIGURES = "planning.png", "planning.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output", type=Path, default=Path("demo_output"), help="folder to write (default: demo_output)"
    )
    parser.add_argument(
        "--labels", choices=("network", "reference"), default="network",
        help="meshes out of the checkpoint's segmentation, or out of the sample's own labels (default: network)",
    )  # fmt: skip
    parser.add_argument("--checkpoint", default="", help="a safetensors file (default: the shipped one)")
    parser.add_argument("--entry", type=_point, help="R,A,S in mm: near this point of the skin (default: the navel)")
    parser.add_argument("--target", type=_point, help="R,A,S in mm (default: in the liver, beside the vena cava)")


def run(arguments: argparse.Namespace) -> int:
    from threedme_ros.geometry.surface import surface_meshes
    from threedme_ros.pictures.planning import planning_figure
    from threedme_ros.planning.demo import figures, plan_demo
    from threedme_ros.samples import SampleError, sample_case

    try:
        case = sample_case("A")
    except SampleError as error:
        raise ValueError(str(error)) from error
    image = case.image()
    labels, confidence, anatomy, source = _labels(arguments, case, image)
    chosen = {name: at for name, at in (("entry_near_m", arguments.entry), ("target_m", arguments.target)) if at}
    results = plan_demo(image, labels, confidence, surface_meshes(labels, anatomy), anatomy, say=print, **chosen)
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / FIGURES).write_text(json.dumps({"source": source, **figures(results)}, indent=2) + "\n")
    title = "3DME on ROS 2  ·  planned around the published meshes"
    planning_figure(arguments.output / PICTURE, results, title=title, subtitle=source)
    for attempt in results.attempts:
        nearest = min(attempt.clearance_mm, key=lambda name: attempt.clearance_mm[name])
        outcome = f"{attempt.length_mm:.0f} mm long" if attempt.poses is not None else attempt.reason
        print(f"{attempt.name}: {outcome}; nearest {nearest}, {attempt.clearance_mm[nearest]:.1f} mm")
    print(f"Look at {arguments.output / PICTURE}.")
    return 0 if results.with_margins.poses is not None else 1


def _labels(arguments: argparse.Namespace, case, image):
    """The label volume, its confidence, its table, and a sentence about where they come from."""
    from threedme_ros.anatomy import Anatomy
    from threedme_ros.share import DEMO_CHECKPOINT, share_path

    if arguments.labels == "reference":
        anatomy = Anatomy.from_yaml(share_path("config/anatomy.yaml"))
        return case.labels(anatomy), None, anatomy, case.source
    from threedme_ros.inference.segmenter import Segmenter
    from threedme_ros.model.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(arguments.checkpoint or share_path(DEMO_CHECKPOINT))
    segmenter = Segmenter(checkpoint)
    try:
        result = segmenter.segment(image)
    finally:
        segmenter.close()
    source = f"patient A (a training case), segmented by checkpoint {checkpoint.hash}"
    return result.labels, result.confidence, checkpoint.anatomy, source


def _point(text: str) -> tuple[float, float, float]:
    """``"R,A,S"`` mm -> m."""
    try:
        right, anterior, superior = (float(part) / 1000 for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: expected R,A,S in mm, such as 38,145,408") from error
    return right, anterior, superior
