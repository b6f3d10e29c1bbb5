"""`threedme soak`: volumes of every kind through the running node for as long as it takes to see a leak."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

RISES = (("processor time", "cpu_rise"), ("latency", "latency_rise"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--volumes", type=int, default=2000, help="at least so many (default: 2000)")
    parser.add_argument("--minutes", type=float, default=20.0, help="and at least so long (default: 20)")
    parser.add_argument("--most-minutes", type=float, default=240.0, help="but no longer than this (default: 240)")
    parser.add_argument("--json", type=Path, default=Path("runs/reliability/soak.json"), help="every figure goes here")
    parser.add_argument("--seed", type=int, default=0, help="of the volumes and their order (default: 0)")
    parser.add_argument("--checkpoint", default="", help="a safetensors file (default: the shipped one)")
    parser.add_argument("--engine", default="auto", help="auto, or what to try first")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of the network; 0: the engine decides")


def run(arguments: argparse.Namespace) -> int:
    """0 if nothing leaked, slowed down or got lost."""
    from tqdm import tqdm

    from threedme_ros.benchmark.origin import origin
    from threedme_ros.model.checkpoint import load_checkpoint
    from threedme_ros.nodes.soak import DemoError, SoakPlan, run_soak
    from threedme_ros.share import DEMO_CHECKPOINT, share_path

    plan = SoakPlan(arguments.volumes, arguments.minutes, arguments.most_minutes, seed=arguments.seed)
    spacing_mm = load_checkpoint(arguments.checkpoint or share_path(DEMO_CHECKPOINT)).preprocessing.spacing_mm
    print(f"warming up: every volume of the pool once ({plan.small + plan.large} good ones); engines are built")
    with tqdm(total=plan.volumes, unit="volume", mininterval=5) as bar:

        def progress(volumes: int, minutes: float) -> None:
            bar.update(max(0, volumes) - bar.n)
            what = f"{minutes:.1f} of {plan.minutes:g} min" if volumes > 0 else f"warm-up, {-volumes} to go"
            bar.set_description_str(what, refresh=volumes <= 0)

        try:
            found = run_soak(
                plan,
                spacing_mm,
                progress,
                checkpoint=arguments.checkpoint,
                engine=arguments.engine,
                threads=arguments.threads,
            )
        except DemoError as error:
            raise ValueError(str(error)) from error
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps({**origin(), **found}, indent=2) + "\n")
    print(as_text(found))
    print(f"every figure: {arguments.json}")
    return 0 if found["passed"] else 1


def as_text(found: dict) -> str:
    """A summary of what `run_soak` returns, for a person."""
    outcomes = ", ".join(f"{n} {what}" for what, n in found["outcomes"].items())
    rss = found["rss_mb"]
    lines = [
        f"{found['volumes']} volumes in {found['minutes']:.1f} min on {found['engine']['engine']} "
        f"{found['engine']['precision']}; with the warm-up {found['volumes_with_warm_up']}",
        f"counted: {outcomes}; in no count: {found['lost_uncounted']}",
        f"memory {rss['first']:.0f} -> {rss['last']:.0f} MiB ({rss['drift']:+.2%}), at most {rss['max']:.0f}",
    ]
    for what in ("fds", "threads", "shared_memory_segments"):
        lines.append(f"{what.replace('_', ' ')}: {found[what]['first']} -> {found[what]['last']}")
    lines.append(f"processor time a volume, by third: {found['cpu_ms_a_volume_by_third']} ms")
    same = found["same_volumes"]
    rises = [f"{what} {'?' if same[key] is None else format(same[key], '+.1%')}" for what, key in RISES]
    lines.append(f"{same['volumes']} volumes in the last third against themselves in the first: {', '.join(rises)}")
    for kind, thirds in found["latency_ms_by_third"].items():
        text = ", ".join(f"p50 {t['p50']:.0f} p95 {t['p95']:.0f} ms ({t['n']})" if t["n"] else "none" for t in thirds)
        lines.append(f"latency, {kind}, by third: {text}")
    lines += [f"FAILED: {failure}" for failure in found["failures"]] or ["passed"]
    return "\n".join(lines)
