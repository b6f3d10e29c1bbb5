"""`threedme tasks`: what a foundation can be adapted to, and where the data comes from."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="one task only")


def run(arguments: argparse.Namespace) -> int:
    from threedme_ros.training.task_table import all_tasks, find_task

    for task in [find_task(arguments.name)] if arguments.name else all_tasks():
        print(f"{task.name}: {task.title}\n  data: {task.data}\n  paper: {task.reference}")
        for anchor in task.anchors:
            print(f"  published: {anchor.method}, {anchor.metric} {anchor.value:g} ({anchor.data}; {anchor.source})")
        if not task.anchors:
            print("  published: see the paper; no figure is printed here that could not be checked")
    if not arguments.name:
        print("nnunet: any data set in nnU-Net's raw format (dataset.json, imagesTr, labelsTr)")
    return 0
