"""`threedme train-demo`: a demo checkpoint from the sample patients and procedural phantoms."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from threedme_ros.training import train

    train.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    from threedme_ros.training import train

    return train.main(arguments)
