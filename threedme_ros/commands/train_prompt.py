"""`threedme train-prompt`: the decoder that turns clicks into masks, for a frozen checkpoint."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from threedme_ros.training import prompt_train

    prompt_train.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    from threedme_ros.training import prompt_train

    return prompt_train.main(arguments)
