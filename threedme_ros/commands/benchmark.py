"""`threedme benchmark`: one run, one table of how fast everything is here."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from threedme_ros.share import DEMO_CHECKPOINT, share_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, help="also write every figure here")
    parser.add_argument("--markdown", type=Path, help="also write the tables here")
    parser.add_argument("--plot", type=Path, help="also draw them here (.png, .svg, .pdf)")
    parser.add_argument("--checkpoint", help="a safetensors file (default: the shipped one)")
    parser.add_argument("--engine", default="auto", help="auto, tensorrt, openvino, onnxruntime or torch")
    parser.add_argument("--precision", default="auto", help="auto, fp32, bf16 or fp16")
    parser.add_argument("--threads", type=int, default=0, help="0 (default): one a core")
    parser.add_argument("--peers", help="comma-separated; default: all; empty: none")
    parser.add_argument(
        "--update-mm", type=float, help="radius of the resection cavity that an update shows, in mm (default: 12)"
    )
    parser.add_argument("--no-ros", action="store_true", help="leave out the two processes")
    parser.add_argument("--no-growth", action="store_true", help="leave out the other volume sizes")
    parser.add_argument(
        "--ros-soak", type=int, default=0, metavar="N", help="also send N volumes of 16.8 MB through the running node"
    )
    parser.add_argument("--soak-only", action="store_true", help="with --ros-soak: nothing else but one full pass")
    parser.add_argument("--quick", action="store_true", help="tiny volumes: shows that it works, not how fast it is")


def run(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from threedme_ros.benchmark.report import as_json, as_markdown, as_text
    from threedme_ros.benchmark.run import run_benchmark

    plan = plan_of(arguments)
    with tqdm(
        total=plan.steps(), unit="step", bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}] {desc}"
    ) as bar:

        def step(what: str) -> None:
            bar.update(bool(bar.desc))
            bar.set_description_str(what)

        report = run_benchmark(
            plan,
            checkpoint=arguments.checkpoint or share_path(DEMO_CHECKPOINT),
            engine=arguments.engine,
            precision=arguments.precision,
            threads=arguments.threads,
            step=step,
        )
        bar.update(bar.total - bar.n)
    print(as_text(report))
    if arguments.json:
        arguments.json.write_text(json.dumps(as_json(report), indent=2) + "\n")
    if arguments.markdown:
        arguments.markdown.write_text(as_markdown(report))
    if arguments.plot:
        from threedme_ros.benchmark.plot import draw

        draw(report, arguments.plot)
    return 0


def plan_of(arguments: argparse.Namespace):
    """The `Plan` that the arguments ask for. ValueError for a peer or number that is none."""
    from threedme_ros.benchmark.peers import PEERS
    from threedme_ros.benchmark.run import Plan

    if arguments.ros_soak < 0:
        raise ValueError(f"--ros-soak {arguments.ros_soak}: expected 0 or more volumes")
    plan = replace(Plan.quick() if arguments.quick else Plan(), soak=arguments.ros_soak)
    if arguments.update_mm is not None:
        if not 0 < arguments.update_mm <= 100:
            raise ValueError(f"--update-mm {arguments.update_mm}: expected above 0, to 100")
        plan = replace(plan, radius_mm=arguments.update_mm)
    if arguments.peers is not None:
        peers = tuple(name.strip() for name in arguments.peers.split(",") if name.strip())
        if unknown := [name for name in peers if name not in PEERS]:
            raise ValueError(f"--peers {', '.join(unknown)}: expected some of {', '.join(PEERS)}")
        plan = replace(plan, peers=peers)
    if arguments.no_growth or arguments.soak_only:
        plan = replace(plan, growth=(), clinical=False)
    if arguments.no_ros or arguments.soak_only:
        plan = replace(plan, ros=0, ros_large=0, soak=0 if arguments.no_ros else plan.soak)
    if arguments.soak_only:
        plan = replace(plan, engines=(), peers=(), runs=3, updates=2)
    return plan
