"""`make reliability`: docs/reliability.md from the records of the fault harness, the fuzzer and the soak. Runs nothing.

Refuses, and writes nothing, while a record is missing, failed, or too small; ``--partial`` writes all the same and says
so in the first lines.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from records import Record, executions, read_faults, read_fuzz, read_soak

from threedme_ros.benchmark.origin import ROOT, revision
from threedme_ros.benchmark.timing import hardware

OUTCOMES_SHOWN, REASONS_SHOWN = 3, 3
PLACES = re.compile(r" --(?:keep|json|output) \S+")
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--records", type=Path, default=ROOT / "runs/reliability", help="folder of the three JSON files"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "docs/reliability.md")
    parser.add_argument(
        "--partial", action="store_true", help="write although records are missing, failed or too small"
    )
    options = parser.parse_args(arguments)
    faults, fuzz, soak = (
        read(options.records / name)
        for read, name in ((read_faults, "faults.json"), (read_fuzz, "fuzz.json"), (read_soak, "soak.json"))
    )
    problems = [*faults.problems, *fuzz.problems, *soak.problems]
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems and not options.partial:
        print(f"{len(problems)} problems, nothing written (--partial writes all the same)", file=sys.stderr)
        return 1
    about = [
        f"| made | {datetime.now(UTC):%Y-%m-%d %H:%M} UTC |",
        f"| from revision | {revision()} |",
        f"| on | {hardware()} |",
    ]
    options.output.write_text(document(faults, fuzz, soak, problems, about))
    print(f"written: {options.output}")
    return 0


def document(faults: Record, fuzz: Record, soak: Record, problems: list[str], about: list[str]) -> str:
    """The whole page. ``about``: rows of its first table."""
    lines = [
        "# Reliability",
        "",
        "Made by `make reliability` from the records of the runs named below; no figure here was written by hand.",
        "For demonstration only, not for clinical use.",
        "",
    ]
    if problems:
        lines += ["> **PARTIAL. This page does not show what it should:**", ">"]
        lines += [f"> - {problem}" for problem in problems] + [""]
    lines += ["| | |", "|---|---|", *about, *_origins(faults, fuzz, soak), ""]
    for title, record, section in (
        ("Faults", faults, _faults),
        ("Hostile bytes", fuzz, _fuzz),
        ("Load", soak, _soak),
    ):
        lines += [f"## {title}", ""]
        lines += section(record.data) if record.data is not None else [f"No record: {record.problems[0]}.", ""]
    return "\n".join(lines)


def _origins(*records: Record) -> list[str]:
    rows = []
    for record in records:
        if record.data is None:
            continue
        told = [f"`{PLACES.sub('', record.data['command'])}`"] if "command" in record.data else []
        told += [str(record.data[key]) for key in ("date", "revision", "machine") if key in record.data]
        digest = hashlib.sha256(record.path.read_bytes()).hexdigest()[:12]
        rows.append(f"| {record.path.name} | {_cell('; '.join([*told, f'SHA-256 {digest}']))} |")
    return rows


def _faults(data: dict) -> list[str]:
    records = data["records"]
    passed = sum(r["passed"] is True for r in records)
    lines = [
        f"{len(records)} faults were injected into running processes over DDS; {passed} ended as they must.",
        "Besides what the table says, after each of them the node must be active on the engine that it had, unless the",
        "fault itself ends it or takes its engine; every volume sent must be accounted for, a following one segmented,",
        "and served to who joins late; and neither threads nor descriptors may be more than before.",
        "",
        "| fault | what must happen | what did happen | injected | as it must |",
        "|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(r["scenario"] for r in records):
        ours = [r for r in records if r["scenario"] == name]
        good = sum(r["passed"] is True for r in ours)
        cells = (name, ours[0]["expected"], _outcomes(ours), len(ours), good if good == len(ours) else f"**{good}**")
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    for name, why in data.get("impossible", {}).items():
        lines.append(f"| {_cell(name)} | | not injected here: {_cell(why)} | 0 | 0 |")
    return [*lines, ""]


def _outcomes(records: list[dict]) -> str:
    """The most frequent first, alike but for their numbers; how often, where it was not always the same."""
    told = [r["happened"] if r["passed"] is True else f"FAILED: {r['happened']}" for r in records]
    alike = Counter(NUMBER.sub("N", text) for text in told)
    if len(set(told)) == 1:
        return told[0]
    if len(alike) == 1:
        return next(iter(alike))
    ranked = alike.most_common()
    shown = [f"{text} ({times})" for text, times in ranked[:OUTCOMES_SHOWN]]
    rest = sum(times for _, times in ranked[OUTCOMES_SHOWN:])
    return "; ".join(shown + ([f"{rest} in other words"] if rest else []))


def _fuzz(data: dict) -> list[str]:
    rows = data["decoders"]
    crashes = sum(row["crashes"] for row in rows.values())
    lines = [
        f"{executions(data):,} inputs to {len(rows)} decoders ({data.get('engine', 'engine not recorded')}), "
        f"{crashes} crashes.",
        "A crash is any end but a result that holds what it must, or an error of the kind that the decoder promises.",
        "An input that takes too much time or memory counts as one, too, and so does one that makes the decoder open a",
        "file, import, run or unpickle anything, or connect.",
        "",
        "| decoder | inputs | accepted | refused | crashes | slowest, s | refused most often because |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        ranked = sorted(row["refused"].items(), key=lambda item: -item[1])
        why = "; ".join(reason for reason, _ in ranked[:REASONS_SHOWN])
        crashed = f"**{row['crashes']}**" if row["crashes"] else 0
        counts = [f"{row['executions']:,}", f"{row['accepted']:,}", f"{sum(row['refused'].values()):,}", crashed]
        cells = (name, *counts, f"{row['slowest_s']:g}", why)
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return [*lines, ""]


def _soak(data: dict) -> list[str]:
    outcomes = ", ".join(f"{count:,} {what}" for what, count in data["outcomes"].items())
    engine, rss = data["engine"], data["rss_mb"]
    rows = [
        ("volumes", f"{data['volumes']:,} in {data['minutes']:.1f} minutes, as fast as the node takes them"),
        ("kinds", ", ".join(f"{count:,} {kind}" for kind, count in data["by_kind"].items())),
        ("different good volumes", f"{data['distinct_good_volumes']:,}"),
        ("engine", " ".join(str(engine[key]) for key in ("engine", "precision", "device") if key in engine)),
        ("what became of them, with the warm-up", outcomes),
        ("lost, in no count", f"{data['lost_uncounted']}"),
        (
            "memory, MiB",
            f"{rss['first']:g} at first, {rss['last']:g} at last ({rss['drift']:+.2%}), {rss['max']:g} at most",
        ),
    ]
    for key, what in (
        ("fds", "file descriptors"),
        ("threads", "threads"),
        ("shared_memory_segments", "segments of shared memory"),
    ):
        rows.append((what, f"{data[key]['first']} at first, {data[key]['last']} at last, {data[key]['max']} at most"))
    rows.append(("left in shared memory afterwards", ", ".join(data["left_behind"]) or "nothing"))
    thirds = " / ".join(f"{ms:g}" for ms in data["cpu_ms_a_volume_by_third"])
    rows.append(("processor time a volume, by third of the run, ms", thirds))
    for kind, parts in data["latency_ms_by_third"].items():
        told = " / ".join(f"{p['p50']:g}, {p['p95']:g}" if p["n"] else "none" for p in parts)
        rows.append((f"latency of {kind} volumes, p50 and p95 by third, ms", told))
    rows.append(("verdict", "passed" if data["passed"] else "**FAILED**: " + "; ".join(data["failures"])))
    return ["| | |", "|---|---|", *(f"| {_cell(name)} | {_cell(value)} |" for name, value in rows), ""]


def _cell(value: object) -> str:
    return " ".join(str(value).replace("|", "\\|").split())


if __name__ == "__main__":
    sys.exit(main())
