"""report.json and report.md of an evaluation."""

from __future__ import annotations

import json
import math
from pathlib import Path

from threedme_ros.model.trained import Trained

from .task_table import SegmentationTask, Task

CAVEAT = "For demonstration only, never for clinical use."


def write_task_report(output: Path, task: Task, trained: Trained, result: dict, data: str) -> dict:
    """Write both files to ``output``; returns what report.json holds. NaN becomes null. data: the folder's name."""
    report = {
        "task": task.name,
        "title": task.title,
        "kind": task.kind,
        "data": data,
        "checkpoint": trained.hash,
        "adaptation": trained.provenance.get("adaptation"),
        "foundation": trained.provenance.get("foundation"),
    } | result
    if isinstance(task, SegmentationTask):
        report["nsd_tolerance_mm"] = task.nsd_tolerance_mm
    report = _plain(report)
    output.mkdir(parents=True, exist_ok=True)
    (output / "report.json").write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")
    (output / "report.md").write_text(_markdown(task, report))
    return report


def _markdown(task: Task, report: dict) -> str:
    lines = [f"# {task.title}", "", f"Checkpoint `{report['checkpoint']}`; split: {report['split']}.", CAVEAT, ""]
    if isinstance(task, SegmentationTask):
        lines += [
            f"| target | cases | Dice | NSD at {task.nsd_tolerance_mm:g} mm | HD95 (mm) | missed | false alarms |",
            "|---|---|---|---|---|---|---|",
        ]
        for name, row in report["targets"].items():
            figures = " | ".join(_with_sd(row, figure, digits) for figure, digits in
                                 (("dice", 3), ("nsd", 3), ("hd95_mm", 2)))  # fmt: skip
            lines.append(f"| {name} | {row['cases']} | {figures} | {row['missed']} | {row['false_alarms']} |")
        lines += [
            "",
            f"Mean Dice over targets: {_number(report['mean_dice'], 3)}.",
            "Mean (standard deviation) over the cases whose truth shows the target, at full resolution. A missed",
            "target has Dice and NSD 0 and no HD95; a false alarm is a target that is predicted and not there.",
            "",
            f"Worst case {report['worst']}: ![worst](worst.png)",
            "",
            f"Best case {report['best']}: ![best](best.png)",
        ]
        lines += ["", *[f"Skipped {case['name']}: {case['reason']}" for case in report["skipped"]]]
    else:
        lines += ["| split | images | AUC | ACC |", "|---|---|---|---|"]
        for split in ("val", "test"):
            row = report[split]
            lines.append(f"| {split} | {row['images']} | {_number(row['auc'], 3)} | {_number(row['acc'], 3)} |")
        lines += ["", "Worst: ![worst](worst.png)\n\nBest: ![best](best.png)"]
    if task.anchors:
        lines += ["", "Published figures, for orientation; what they were measured on is not always the same:", ""]
        lines += ["| method | metric | value | on | source |", "|---|---|---|---|---|"]
        lines += [f"| {a.method} | {a.metric} | {a.value:g} | {a.data} | {a.source} |" for a in task.anchors]
    return "\n".join(lines).rstrip() + "\n"


def _with_sd(row: dict, figure: str, digits: int) -> str:
    spread = row[f"{figure}_sd"]
    return _number(row[figure], digits) + (f" ({_number(spread, digits)})" if spread is not None else "")


def _number(value: float | None, digits: int) -> str:
    return "n/a" if value is None else f"{value:.{digits}f}"


def _plain(value):
    """The same with None for NaN, as JSON has no NaN."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
