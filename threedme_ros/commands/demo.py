"""`threedme demo`: one real CT through the running nodes, and what a person sees of it."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output", type=Path, default=Path("demo_output"), help="folder to write (default: demo_output)"
    )
    parser.add_argument("--source", default="sample:A", help="sample:A to sample:D, or phantom (default: sample:A)")
    parser.add_argument("--volumes", type=int, default=5, help="volumes to segment at least (default: 5)")
    parser.add_argument("--checkpoint", default="", help="a safetensors file (default: the shipped one)")
    parser.add_argument(
        "--engine", default="auto", help="auto, or what to try first: tensorrt, openvino, onnxruntime, torch"
    )
    parser.add_argument("--record", type=Path, help="folder for a bag of every volume and result; see threedme replay")


def run(arguments: argparse.Namespace) -> int:
    if arguments.volumes < 1:
        raise ValueError(f"--volumes {arguments.volumes}: expected at least 1")
    from tqdm import tqdm

    from threedme_ros.nodes.demo_run import DemoError, run_demo
    from threedme_ros.pictures.report import write_report

    with tqdm(total=arguments.volumes, desc="volumes segmented", unit="volume") as bar:

        def progress(segmented: int) -> None:
            bar.update(min(segmented, bar.total) - bar.n)

        try:
            results = run_demo(
                source=arguments.source,
                checkpoint=arguments.checkpoint,
                engine=arguments.engine,
                volumes=arguments.volumes,
                record=str(arguments.record.resolve()) if arguments.record else "",
                say=tqdm.write,
                progress=progress,
            )
        except DemoError as error:
            raise ValueError(str(error)) from error
    print("measuring the checkpoint on the patients it was never trained on ...")
    results = replace(results, evaluations=unseen_patients(arguments.checkpoint, arguments.engine))
    print("drawing ...")
    report = write_report(arguments.output, results, planned(results, arguments.source))
    for evaluation in results.evaluations:
        dice = "not comparable" if evaluation.mean_dice is None else f"mean Dice {evaluation.mean_dice:.3f}"
        print(f"{evaluation.name}: {dice} ({evaluation.note})")
    print(f"{results.volumes_segmented} volumes segmented. Look at {report} and the pictures beside it.")
    return 0


def planned(results, source: str):
    """A tool planned around the meshes as received; None, with the reason, where that cannot be."""
    from threedme_ros.planning.demo import plan_demo

    if not results.source.startswith("totalsegmentator") or source != "sample:A":
        print("no planning: entry and target are chosen for sample patient A")
        return None
    try:
        return plan_demo(results.image, results.labels, results.confidence, results.meshes, results.anatomy, say=print)
    except (ModuleNotFoundError, ValueError) as error:
        print(f"no planning: {error}")
        return None


def unseen_patients(checkpoint: str, engine: str) -> tuple:
    """Dice on the thorax CT and the MR slab (`Evaluation` each); empty where the samples cannot be fetched."""
    from threedme_ros.inference.segmenter import Segmenter
    from threedme_ros.model.checkpoint import load_checkpoint
    from threedme_ros.pictures.results import Evaluation
    from threedme_ros.samples import SampleError
    from threedme_ros.share import DEMO_CHECKPOINT, share_path
    from threedme_ros.training.evaluate import evaluate_samples

    segmenter = Segmenter(load_checkpoint(checkpoint or share_path(DEMO_CHECKPOINT)), engine=engine)
    try:
        scores = evaluate_samples(segmenter, ("C", "D"), surfaces=False)
    except SampleError as error:
        print(f"no figures on unseen patients: {error}")
        return ()
    finally:
        segmenter.close()
    return tuple(
        Evaluation(
            f"patient {case.key}",
            f"{case.source}; never trained on",
            case.mean_dice if case.mean_dice == case.mean_dice else None,
            {s.name: s.dice for s in case.structures if s.truth_ml > 0},
        )
        for case in scores
    )
