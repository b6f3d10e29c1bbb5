"""`threedme`: one command, with a subcommand for each thing done at the desk.

A subcommand is a module of `threedme_ros.commands` with ``add_arguments(parser)`` and ``run(arguments) -> status``; it
is imported only when it is asked for, so that ``threedme --help`` is instant.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

import threedme_ros

COMMANDS = {
    "demo": "one real CT through the running ROS 2 nodes: pictures, report, figures",
    "demo-planning": "a tool planned around a sample patient by OMPL: paths, clearances, picture",
    "segment": "segment a volume file or a DICOM folder, without ROS",
    "evaluate": "a checkpoint on the sample patients, or on a task's held-out cases: report and pictures",
    "train-demo": "train a demo checkpoint from the two training patients and phantoms",
    "train-prompt": "train the decoder that turns clicks into masks, on a frozen checkpoint",
    "experiment": "masking schedules, few labels, parts of the encoder, patients never seen: tables over seeds",
    "pretrain": "a foundation from unlabelled volumes, by progressive masking; torchrun for many GPUs",
    "tasks": "the tasks a foundation can be adapted to: data, papers, published figures",
    "finetune": "adapt a foundation to a task: frozen encoder, low-rank adapters, or everything",
    "predict": "segment a folder of scans: resumable, shared out over torchrun or SLURM, one report",
    "benchmark": "how fast this machine is, against other networks: every stage, engine and size, ROS, memory",
    "replay": "a recording of the perception node made again on this CPU: are the labels the same, bit for bit?",
    "soak": "volumes of every kind through the running node, for long: what leaks, slows down or gets lost",
    "calibrate": "what a checkpoint's confidence is worth, and a score for input it was not made for; into the file",
    "info": "what a checkpoint is: model, label table, preprocessing, provenance, hash",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; bad input is one line on stderr and exit status 2, an interrupt 130."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] not in COMMANDS:
        return _top_level(argv)
    command = importlib.import_module(f"threedme_ros.commands.{argv[0].replace('-', '_')}")
    parser = argparse.ArgumentParser(f"threedme {argv[0]}", description=COMMANDS[argv[0]])
    command.add_arguments(parser)
    arguments = parser.parse_args(argv[1:])
    try:
        return command.run(arguments)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"threedme {argv[0]}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _top_level(argv: list[str]) -> int:
    width = max(map(len, COMMANDS))
    parser = argparse.ArgumentParser(
        "threedme",
        description="3DME, a 3-D medical foundation encoder, at the desk. For demonstration, not for clinical use.",
        epilog="commands:\n" + "\n".join(f"  {name:{width}}  {text}" for name, text in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"threedme_ros {threedme_ros.__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="command", help="see below; `threedme COMMAND --help`")
    parser.parse_args(argv or ["--help"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
