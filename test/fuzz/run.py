"""Fuzz every decoder: python test/fuzz/run.py --executions 1000000 --output runs/reliability/fuzz.json

Each decoder runs in a process of its own, one after the other, with a fixed seed. With atheris (pip install atheris)
coverage guides the inputs; without it the same structure-aware damage is drawn at random, and the summary says so.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

from threedme_ros.benchmark.origin import origin

HERE = Path(__file__).resolve().parent
TOP_REASONS = 25
MAX_RESTARTS = 20
INSTRUMENTED = ("threedme_ros", "pyigtl")
"""Coverage of our own code and of what is hardly more than a part of it; it costs several times the speed."""


def main() -> int:
    arguments = _arguments()
    sys.path.insert(0, str(HERE))
    if arguments.child:
        return _child(arguments)
    engine = arguments.engine
    if engine == "auto":
        engine = "atheris" if importlib.util.find_spec("atheris") else "random"
        if engine == "random":
            print("atheris is not installed: inputs are drawn at random, without coverage (pip install atheris)")
    from hostile.table import DECODERS

    shares = {name: share for name, (_, share) in DECODERS.items() if not arguments.only or name in arguments.only}
    work = arguments.output.with_suffix("")
    work.mkdir(parents=True, exist_ok=True)
    total_share, summary, began = sum(shares.values()), {}, time.perf_counter()
    for number, (name, share) in enumerate(shares.items(), 1):
        wanted = math.ceil(arguments.executions * share / total_share)
        summary[name] = _run(name, wanted, arguments.seed, work, engine)
        done = sum(row["executions"] for row in summary.values())
        row = summary[name]
        print(
            f"[{number}/{len(shares)}] {name}: {row['executions']} inputs in {row['seconds']:.0f} s, "
            f"{row['accepted']} accepted, {sum(row['refused'].values())} refused, {row['crashes']} crashes; "
            f"{done} in all after {time.perf_counter() - began:.0f} s",
            flush=True,
        )
        _write(arguments, engine, summary)
    bad = {name: row["defects"] for name, row in summary.items() if row["defects"]}
    for name, defects in bad.items():
        for reason, defect in defects.items():
            print(f"DEFECT {name}: {reason} ({defect['times']} times, {work}/{name}.defects/{defect['input']})")
    return 1 if bad else 0


def _child(arguments: argparse.Namespace) -> int:
    """One decoder in this process; for atheris, all that is imported here and matters is instrumented on the way in."""
    instrumented = contextlib.nullcontext()
    if arguments.engine == "atheris":
        import atheris

        instrumented = atheris.instrument_imports(include=list(INSTRUMENTED), enable_loader_override=False)
    with instrumented:
        from hostile.campaign import run_campaign
        from hostile.table import decoder

        chosen = decoder(arguments.child)
    run_campaign(chosen, arguments.executions, arguments.seed, arguments.work, arguments.engine)
    return 0


def _run(name: str, wanted: int, seed: int, work: Path, engine: str) -> dict:
    """The tally of one decoder; a process that a crash in C ended is counted and followed by another."""
    rows, left = [], wanted
    shutil.rmtree(work / f"{name}.defects", ignore_errors=True)
    for restart in range(MAX_RESTARTS):
        file = work / f"{name}.json"
        file.unlink(missing_ok=True)
        command = [sys.executable, __file__, "--child", name, "--executions", str(left), "--seed", str(seed + restart)]
        command += ["--work", str(work), "--engine", engine]
        with (work / f"{name}.log").open("w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
            _follow(process, name, file, left)
        row = json.loads(file.read_text()) if file.is_file() else None
        if row is None:
            raise SystemExit(f"{name} did not start, see {work / name}.log")
        if process.returncode:
            _record_death(row, process.returncode, work, name)
        rows.append(row)
        left -= row["executions"]
        if not process.returncode or left <= 0:
            break
    return _merged(rows)


def _follow(process: subprocess.Popen, name: str, file: Path, wanted: int) -> None:
    """A bar with the time left, from the tally that the process writes now and then."""
    from tqdm import tqdm

    with tqdm(total=wanted, desc=name, unit=" inputs", disable=not sys.stderr.isatty(), leave=False) as bar:
        while process.poll() is None:
            time.sleep(0.2)
            if file.is_file():
                bar.update(json.loads(file.read_text())["executions"] - bar.n)


def _record_death(row: dict, code: int, work: Path, name: str) -> None:
    now = (work / f"{name}.now").read_bytes()
    data = now[8 : 8 + int.from_bytes(now[:8], "little")]
    (work / f"{name}.defects").mkdir(exist_ok=True)
    (work / f"{name}.defects" / f"death{code}").write_bytes(data)
    row["defects"][f"the process ended with {code}"] = {"times": 1, "input": f"death{code}"}
    row["crashes"] += 1


def _merged(rows: list[dict]) -> dict:
    whole = rows[0]
    for row in rows[1:]:
        for key in ("executions", "accepted", "seconds", "crashes"):
            whole[key] += row[key]
        whole["slowest_s"] = max(whole["slowest_s"], row["slowest_s"])
        for reason, times in row["refused"].items():
            whole["refused"][reason] = whole["refused"].get(reason, 0) + times
        whole["defects"] |= row["defects"]
    ranked = sorted(whole["refused"].items(), key=lambda item: -item[1])
    whole["refused"] = dict(ranked[:TOP_REASONS])
    if rest := sum(times for _, times in ranked[TOP_REASONS:]):
        whole["refused"][f"{len(ranked) - TOP_REASONS} other reasons"] = rest
    whole["seconds"], whole["slowest_s"] = round(whole["seconds"], 1), round(whole["slowest_s"], 3)
    return whole


def _write(arguments: argparse.Namespace, engine: str, summary: dict) -> None:
    keys = ("executions", "accepted", "crashes", "seconds")
    total = {key: round(sum(row[key] for row in summary.values()), 1) for key in keys}
    total["refused"] = sum(sum(row["refused"].values()) for row in summary.values())
    document = {
        **origin(),
        "engine": engine,
        "python": platform.python_version(),
        "seed": arguments.seed,
        "decoders": summary,
        "total": total,
    }
    temporary = arguments.output.with_name(f".{arguments.output.name}.{os.getpid()}")
    temporary.write_text(json.dumps(document, indent=1))
    temporary.replace(arguments.output)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--executions", type=int, default=1_000_000, help="inputs over all decoders")
    parser.add_argument("--output", type=Path, default=Path("runs/reliability/fuzz.json"))
    parser.add_argument("--only", nargs="*", default=[], help="names of decoders")
    parser.add_argument("--seed", type=int, default=20261125)
    parser.add_argument("--engine", choices=("auto", "atheris", "random"), default="auto")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
