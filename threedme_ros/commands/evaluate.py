"""`threedme evaluate`: a checkpoint on the sample patients (also by clicks, by prototypes, corrupted), or on a task."""

from __future__ import annotations

import argparse
from pathlib import Path

SAMPLES, PROMPTS, PROTOTYPES, ROBUSTNESS, TRUST = "samples", "prompts", "prototypes", "robustness", "trust"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from threedme_ros.training import evaluate

    parser.add_argument(
        "task",
        nargs="?",
        default=SAMPLES,
        help="a task as for finetune; on the samples: samples (the default), prompts, prototypes, robustness, trust",
    )
    evaluate.add_arguments(parser)
    parser.add_argument("--prompt-decoder", type=Path, help="prompts: default, the one that ships")
    robust = parser.add_argument_group("robustness")
    robust.add_argument("--volume", type=Path, help="with --labels, instead of --cases: a volume file or DICOM folder")
    robust.add_argument("--labels", type=Path, help="its truth on the same grid, ids of the checkpoint's label table")
    robust.add_argument("--corruptions", nargs="+", metavar="NAME", help="default: all; a name of two words in quotes")
    document = "robustness, trust: also put the table into this file, between <!-- NAME --> and <!-- /NAME -->"
    parser.add_argument("--document", type=Path, help=document)
    task = parser.add_argument_group("a task")
    task.add_argument("--data", type=Path, help="the data set's folder, as its authors lay it out")
    task.add_argument("--foundation", help="with --adapter: the foundation it belongs to")
    task.add_argument("--adapter", help="instead of a checkpoint")
    task.add_argument("--neighbours", type=int, metavar="K", help="classes by K nearest neighbours of --foundation")
    task.add_argument(
        "--output", type=Path, help="report.json, report.md, pictures (default: runs/TASK/evaluation, runs/robustness)"
    )
    task.add_argument("--fold", type=int, default=0, help="the fold that was held out (default: 0)")
    task.add_argument("--image-size", type=int, help="MedMNIST3D: 28 or 64 (default: the larger file there is)")
    task.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    task.add_argument("--skip-bad-cases", action="store_true", help="list and leave out what cannot be used")


def run(arguments: argparse.Namespace) -> int:
    if arguments.task == SAMPLES:
        from threedme_ros.training import evaluate

        return evaluate.main(arguments)
    if arguments.task == PROMPTS:
        from threedme_ros.training import prompt_evaluation

        return prompt_evaluation.main(arguments)
    if arguments.task == PROTOTYPES:
        from threedme_ros.training import prototype_evaluation

        return prototype_evaluation.main(arguments)
    if arguments.task == ROBUSTNESS:
        from threedme_ros.training.robustness import command

        return command.main(arguments)
    if arguments.task == TRUST:
        from threedme_ros.training import trust_evaluation

        return trust_evaluation.main(arguments)
    return _run_task(arguments)


def _run_task(arguments: argparse.Namespace) -> int:
    from threedme_ros.model.trained import load_trained
    from threedme_ros.training.task_data import open_task
    from threedme_ros.training.task_evaluation import check_fits
    from threedme_ros.training.task_report import write_task_report

    if arguments.data is None:
        raise ValueError(f"evaluate {arguments.task}: expected --data, the data set's folder")
    task = open_task(arguments.task, arguments.data)
    if arguments.neighbours is not None:
        return _neighbours(task, arguments)
    checkpoint = arguments.checkpoint
    if checkpoint is None and arguments.adapter is None:
        checkpoint = Path("runs") / task.name / "checkpoint.safetensors"
    trained = load_trained(checkpoint, foundation=arguments.foundation, adapter=arguments.adapter)
    check_fits(task, trained)
    output = arguments.output or Path("runs") / task.name / "evaluation"
    output.mkdir(parents=True, exist_ok=True)
    evaluate_task = _classification if task.kind == "classification" else _segmentation
    report = write_task_report(
        output, task, trained, evaluate_task(task, trained, arguments, output), arguments.data.name
    )
    print((output / "report.md").read_text())
    print(f"{output}/report.md, report.json, worst.png, best.png; checkpoint {report['checkpoint']}")
    return 0


def _classification(task, trained, arguments: argparse.Namespace, output: Path) -> dict:
    from threedme_ros.training.datasets.medmnist3d import find_file, read_splits
    from threedme_ros.training.task_evaluation import evaluate_classification

    splits = read_splits(find_file(arguments.data, task.flag, arguments.image_size), task.num_classes)
    return evaluate_classification(task, splits, trained, output, arguments.device)


def _neighbours(task, arguments: argparse.Namespace) -> int:
    from threedme_ros.model.adapters import load_base
    from threedme_ros.training.datasets.medmnist3d import find_file, read_splits
    from threedme_ros.training.neighbour_evaluation import evaluate_neighbours, table

    if task.kind != "classification" or arguments.foundation is None or arguments.neighbours < 1:
        raise ValueError(
            f"evaluate {task.name} --neighbours {arguments.neighbours}: expected a classification task, --foundation "
            "and at least 1 neighbour"
        )
    splits = read_splits(find_file(arguments.data, task.flag, arguments.image_size), task.num_classes)
    foundation = load_base(arguments.foundation)
    result = evaluate_neighbours(task, splits, foundation, arguments.neighbours, arguments.device)
    print(table(task, foundation, arguments.neighbours, result))
    return 0


def _segmentation(task, trained, arguments: argparse.Namespace, output: Path) -> dict:
    from tqdm import tqdm

    from threedme_ros.inference.engines import EngineError
    from threedme_ros.inference.segmenter import Segmenter
    from threedme_ros.training.task_data import find_split
    from threedme_ros.training.task_evaluation import evaluate_segmentation

    split = find_split(task, arguments.data, arguments.fold)
    # cases come in many shapes, and the other engines build for each
    engine = "torch" if arguments.engine == "auto" else arguments.engine
    try:
        segmenter = Segmenter(trained, engine=engine, device=arguments.device, modality=task.modalities)
    except EngineError as error:
        raise ValueError(str(error)) from error
    try:
        return evaluate_segmentation(
            task,
            split,
            segmenter,
            output,
            skip_bad_cases=arguments.skip_bad_cases,
            progress=lambda items, total: tqdm(items, total=total, unit="case"),
        )
    finally:
        segmenter.close()
