"""Injects faults into running nodes, over and over, and records what happened: `run.py --count 200 --seed 1`."""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER), str(FOLDER.parent)]  # the modules of these tests are no package

from catalogue import SCENARIOS  # noqa: E402
from driver import inject  # noqa: E402
from scenario import Record, Scenario  # noqa: E402
from theatre import Theatre  # noqa: E402

from threedme_ros.benchmark.origin import origin  # noqa: E402


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="faults to inject")
    parser.add_argument("--seed", type=int, default=1, help="of the order and the moments")
    parser.add_argument("--output", type=Path, default=Path("runs/reliability/faults.json"))
    parser.add_argument("--jobs", type=int, default=1, help="so many nodes at once, each in a domain of its own")
    parser.add_argument("--only", default="", help="scenarios whose name holds this")
    parser.add_argument("--keep", type=Path, default=None, help="a folder for the logs of the nodes, which stay")
    options = parser.parse_args(arguments)
    options.origin = origin()
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    kinds = [kind for kind in SCENARIOS if options.only in kind.name]
    impossible = {kind.name: why for kind in kinds if (why := kind().possible())}
    kinds = [kind for kind in kinds if kind.name not in impossible]
    if not kinds:
        parser.error(f"--only {options.only!r}: no scenario is called so; they are {[k.name for k in SCENARIOS]}")
    with tempfile.TemporaryDirectory(prefix="faults_") as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if options.jobs > 1:
            records = run_at_once(impossible, folder, options)
        else:
            records = run(kinds, impossible, folder, options)
    failed = [record for record in records if not record.passed]
    print(f"{len(records)} faults injected, {len(failed)} failed: {options.output}")
    for record in failed:
        print(f"FAILED {record.scenario} (seed {record.seed}): {record.happened[:300]}")
    return 1 if failed else 0


def run(kinds: list[type[Scenario]], impossible: dict[str, str], folder: Path, options) -> list[Record]:
    records: list[Record] = []
    began, theatre = time.time(), Theatre(folder)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the nodes go, too; after rclpy has set its own handler
    try:
        for kind, seed in draw(kinds, options.seed, options.count):
            repetition = sum(record.scenario == kind.name for record in records) + 1
            record = inject(kind, theatre, seed, repetition)
            records.append(record)
            verdict = "ok" if record.passed else "FAILED"
            print(
                f"{len(records)}/{options.count} {record.seconds:6.1f} s {verdict}: {record.scenario}: "
                f"{record.happened[:160]}",
                flush=True,
            )
            write(options.output, records, impossible, options, began, theatre.starts)
    finally:
        theatre.close()
    return records


def run_at_once(impossible: dict[str, str], folder: Path, options) -> list[Record]:
    """``options.jobs`` runs of this command, with the seeds that follow one another, and one report of all."""
    began, running = time.time(), []
    for job in range(options.jobs):
        count = options.count // options.jobs + (job < options.count % options.jobs)
        output = folder / f"faults_{job}.json"
        command = [sys.executable, "-u", __file__, "--count", str(count), "--seed", str(options.seed + job)]
        command += ["--output", str(output), "--only", options.only, "--keep", str(folder / f"job_{job}")]
        running.append((subprocess.Popen(command), output))
    for process, _ in running:
        process.wait()
    reports = [json.loads(output.read_text()) for _, output in running]
    records: list[Record] = []
    for row in (row for report in reports for row in report["records"]):
        repetition = sum(record.scenario == row["scenario"] for record in records) + 1
        records.append(Record(**{**row, "repetition": repetition}))
    write(options.output, records, impossible, options, began, sum(report["node_starts"] for report in reports))
    return records


def draw(kinds: list[type[Scenario]], seed: int, count: int) -> Iterator[tuple[type[Scenario], int]]:
    """``count`` scenarios, each once a round in a random order, with a seed for each."""
    chance, rounds = random.Random(seed), -(-count // len(kinds))
    order = [kind for _ in range(rounds) for kind in chance.sample(kinds, len(kinds))]
    for kind in order[:count]:
        yield kind, chance.randrange(2**31)


def write(path: Path, records: list[Record], impossible: dict[str, str], options, began: float, starts: int) -> None:
    """After every fault, so that what was done is there even if the run is cut short."""
    scenarios = {}
    for record in records:
        row = scenarios.setdefault(record.scenario, {"expected": record.expected, "injected": 0, "passed": 0})
        row["injected"] += 1
        row["passed"] += record.passed
    report = {
        **options.origin,
        "seed": options.seed,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
        "seconds": round(time.time() - began, 1),
        "injected": len(records),
        "passed": sum(record.passed for record in records),
        "node_starts": starts,
        "scenarios": scenarios,
        "impossible": impossible,
        "records": [asdict(record) for record in records],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(report, indent=1) + "\n")
    new.replace(path)


if __name__ == "__main__":
    sys.exit(main())
