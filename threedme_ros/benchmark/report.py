"""A `Report` as a table for the terminal, as Markdown, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from threedme_ros.benchmark.ours import STAGES, PathTimes
from threedme_ros.benchmark.run import CLINICAL, Report
from threedme_ros.benchmark.timing import text_of

Table = tuple[str, list[str], list[list[str]]]
"""Title, header, rows."""


def as_json(report: Report) -> dict:
    """Seconds, MB and shares; the keys of issue 6, and more beside them."""
    full, update, plan = report.full, report.update, report.plan
    shape = list(plan.shape)
    own = next((p for p in report.growth if list(p.shape) == shape), None)
    return {
        "hardware": report.hardware,
        "idle_share_at_start": round(report.idle, 3),
        "threads": report.threads,
        "engine": report.engine,
        "checkpoint": report.checkpoint,
        "subject": report.subject,
        "volume": shape,
        "full_s": round(full.labels_s.median_s, 5),
        "network_s": round(full.stages["network"].median_s, 5),
        "overhead_share": round(full.overhead_share, 4),
        "message_s": round(full.stages["total"].median_s, 5),
        "message_overhead_share": round(full.message_overhead_share, 4),
        "update_s": round(update.labels_s.median_s, 5),
        "update_share": round(update.labels_s.median_s / full.labels_s.median_s, 4),
        "update_agreement": round(min(a.all for a in report.agreements), 6),
        "update_agreement_in_changed_voxels": round(float(np.mean([a.changed for a in report.agreements])), 5),
        "update_changed_share": [round(s, 5) for s in report.changed_share],
        "update_kinds": list(report.update_kinds),
        "postprocess_ms": round(full.stages["surface"].median_s * 1e3, 2),
        "peak_mb": own.peak_mb if own else None,
        "stages": {name: times.as_json() for name, times in full.stages.items()},
        "update_stages": {name: times.as_json() for name, times in update.stages.items()},
        "engines": {
            name: {"full_s": times.labels_s.as_json(), "network_s": times.stages["network"].as_json()}
            for name, times in report.engines.items()
        },
        "peers": {
            peer.name: {
                "volume_s": round(peer.volume_s, 4),
                "ratio": round(peer.volume_s / full.labels_s.median_s, 2),
                "window_s": peer.window.as_json(),
                "windows": peer.windows,
                "extrapolated": peer.extrapolated,
                "parameters_m": round(peer.parameters_m, 2),
            }
            for peer in report.peers
        },
        "ros_ms": {name: _ros_json(traffic) for name, traffic in report.ros.items()},
        "growth": [_point_json(point) for point in report.growth],
        "clinical": _point_json(report.clinical) if report.clinical else None,
        "notes": report.notes,
    }


def _ros_json(traffic) -> dict:
    return {
        "p50": round(traffic.percentile_ms(50), 2),
        "p95": round(traffic.percentile_ms(95), 2),
        "labels_received_p50": round(float(np.percentile(traffic.latencies_ms, 50)), 2),
        "labels_received_p95": round(float(np.percentile(traffic.latencies_ms, 95)), 2),
        "volumes": traffic.sent,
        "lost": traffic.lost,
        "counts": traffic.counts,
        "rss_mb_first": round(traffic.rss_mb[0], 1),
        "rss_mb_last": round(traffic.rss_mb[-1], 1),
        "rss_drift": round(traffic.rss_drift, 5),
    }


def _point_json(point) -> dict:
    return {
        "shape": list(point.shape),
        "spacing_mm": list(point.spacing_mm),
        "seconds": round(point.seconds.median_s, 5),
        "network_s": round(point.network.median_s, 5),
        "peak_mb": point.peak_mb,
        "base_mb": point.base_mb,
        "windows": point.windows,
        "build_s": point.build_s,
    }


def tables(report: Report) -> list[Table]:
    full, update = report.full, report.update
    size = " x ".join(map(str, report.plan.shape))
    found = [
        (
            f"One {size} volume, {report.engine}",
            ["stage", "full pass", "update"],
            [[name, str(full.stages[name]), str(update.stages[name])] for name in STAGES]
            + [["Volume to label Volume", str(full.labels_s), str(update.labels_s)], *_shares(report)],
        ),
        (
            f"{size}, Volume to label Volume, against networks with a sliding window of "
            f"{' x '.join(map(str, report.plan.patch))}, overlap 0.5, in {report.engine}",
            ["network", "parameters", "one window", "windows", "volume", "times ours"],
            [["3DME", "", "", "1", text_of(full.labels_s.median_s), "1"], *(_peer(p, full) for p in report.peers)],
        ),
    ]
    if report.engines:
        every = {report.engine: full, **report.engines}
        found.append(
            (
                f"Engines, {size}",
                ["engine", "network", "Volume to label Volume"],
                [[name, str(times.stages["network"]), str(times.labels_s)] for name, times in every.items()],
            )
        )
    points = [*report.growth, *([report.clinical] if report.clinical else [])]
    if points:
        found.append(
            (
                "Growth (peak memory of a whole process; it holds base before the engine is made)",
                ["volume (R x A x S)", "spacing mm", "windows", "network", "Volume to label Volume", "peak", "base"],
                [_growth(point) for point in points],
            )
        )
    if report.ros:
        found.append(
            (
                "ROS, two processes, stamp to publish (all results) and to labels received",
                ["message", "volumes", "p50", "p95", "labels p50", "labels p95", "lost", "memory"],
                [_ros(name, traffic) for name, traffic in report.ros.items()],
            )
        )
    return found


def _shares(report: Report) -> list[list[str]]:
    full, update = report.full, report.update
    share = update.labels_s.median_s / full.labels_s.median_s
    rows = [
        ["not the network, Volume to label Volume", f"{full.overhead_share:.1%}", f"{update.overhead_share:.1%}"],
        [
            "not the network, bytes to bytes",
            f"{full.message_overhead_share:.1%}",
            f"{update.message_overhead_share:.1%}",
        ],
        ["share of a full pass", "100%", f"{share:.1%}"],
    ]
    if report.agreements:
        least = min(a.all for a in report.agreements)
        inside = np.mean([a.changed for a in report.agreements])
        rows.append(["labels as after a full pass, worst of all updates", "", f"{least:.3%}"])
        rows.append(["the same in the changed voxels, mean", "", f"{inside:.1%}"])
        rows.append(["changed voxels", "", f"{min(report.changed_share):.2%} to {max(report.changed_share):.2%}"])
        counts = {kind: report.update_kinds.count(kind) for kind in dict.fromkeys(report.update_kinds)}
        rows.append(["passes", "", ", ".join(f"{n} {kind}" for kind, n in counts.items())])
    return rows


def _peer(peer, full: PathTimes) -> list[str]:
    how = " (windows x median window)" if peer.extrapolated else ""
    return [
        peer.name,
        f"{peer.parameters_m:.1f} M",
        str(peer.window),
        str(peer.windows),
        text_of(peer.volume_s) + how,
        f"{peer.volume_s / full.labels_s.median_s:.1f}",
    ]


def _growth(point) -> list[str]:
    return [
        " x ".join(map(str, point.shape)),
        " x ".join(f"{s:g}" for s in point.spacing_mm),
        str(point.windows),
        text_of(point.network.median_s),
        str(point.seconds),
        f"{point.peak_mb:.0f} MB",
        f"{point.base_mb:.0f} MB",
    ]


def _ros(name: str, traffic) -> list[str]:
    return [
        f"{name} ({traffic.megabytes:.1f} MB, {traffic.engine})",
        str(traffic.sent),
        *(f"{traffic.percentile_ms(q):.0f} ms" for q in (50, 95)),
        *(f"{np.percentile(traffic.latencies_ms, q):.0f} ms" for q in (50, 95)),
        str(traffic.lost),
        f"{traffic.rss_mb[-1]:.0f} MB, drift {traffic.rss_drift:+.1%}",
    ]


def heading(report: Report) -> list[str]:
    lines = [
        f"{report.hardware}; {report.threads} threads; {report.idle:.0%} idle at the start",
        f"{report.engine}, checkpoint {report.checkpoint}; the volume: {report.subject}",
    ]
    if report.clinical:
        lines.append(f"the last row of growth: {CLINICAL[0]} voxels at {CLINICAL[1]} mm, as a scanner gives an abdomen")
    return lines + [f"note: {note}" for note in report.notes]


def as_text(report: Report) -> str:
    parts = heading(report)
    for title, header, rows in tables(report):
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        parts += ["", title, _line(header, widths), "  ".join("-" * w for w in widths)]
        parts += [_line(row, widths) for row in rows]
    return "\n".join(parts)


def as_markdown(report: Report) -> str:
    parts = [f"{line}  " for line in heading(report)]
    for title, header, rows in tables(report):
        parts += ["", f"**{title}**", "", "| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
        parts += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(parts) + "\n"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
