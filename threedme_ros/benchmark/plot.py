"""A `Report` as one picture: our stages, the other networks, growth in time and memory."""

from __future__ import annotations

from math import prod
from pathlib import Path

from threedme_ros.benchmark.ours import STAGES
from threedme_ros.benchmark.run import Report
from threedme_ros.benchmark.timing import text_of

OURS, OTHERS, UPDATE = "#0f766e", "#94a3b8", "#f59e0b"


def draw(report: Report, path: Path) -> None:
    """PNG, SVG or PDF by the suffix of ``path``."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(15, 4.6), constrained_layout=True)
    _networks(report, axes[0])
    _stages(report, axes[1])
    _growth(report, axes[2])
    size = " x ".join(map(str, report.plan.shape))
    figure.suptitle(f"3DME, {size} voxels, {report.engine}, {report.threads} threads, {report.hardware}", fontsize=10)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _networks(report: Report, axis) -> None:
    ours, update = report.full.labels_s.median_s, report.update.labels_s.median_s
    rows = [("3DME, update", update, UPDATE), ("3DME, full pass", ours, OURS)]
    rows += [(p.name, p.volume_s, OTHERS) for p in sorted(report.peers, key=lambda p: p.volume_s)]
    bars = axis.barh([r[0] for r in rows], [r[1] for r in rows], color=[r[2] for r in rows])
    texts = [f"{text_of(seconds)}  ({seconds / ours:.2g} x)" for _, seconds, _ in rows]
    axis.bar_label(bars, texts, padding=4, fontsize=9)
    axis.set(xscale="log", xlabel="seconds, Volume to label Volume", title="Against sliding windows, same engine")
    axis.set_xlim(update / 3, max(r[1] for r in rows) * 40)


def _stages(report: Report, axis) -> None:
    names = [name for name in STAGES if name != "total"]
    bottom = {0: 0.0, 1: 0.0}
    for name in names:
        for place, times in enumerate((report.full, report.update)):
            height = times.stages[name].median_s * 1e3
            axis.bar(place, height, bottom=bottom[place], color=f"C{names.index(name)}", label=None if place else name)
            bottom[place] += height
    axis.set_xticks([0, 1], ["full pass", "update"])
    axis.set_xlim(-0.6, 2.3)  # the legend stands beside the bars
    axis.set(ylabel="ms", title="Bytes of a volume in, labels and surfaces out")
    axis.legend(fontsize=9)


def _growth(report: Report, axis) -> None:
    points = sorted(report.growth, key=lambda p: prod(p.shape))
    voxels = [prod(p.shape) / 1e6 for p in points]
    axis.loglog(voxels, [p.seconds.median_s for p in points], "o-", color=OURS)
    axis.set(xlabel="million voxels at the model's spacing", title="Growth")
    axis.set_ylabel("seconds", color=OURS)
    memory = axis.twinx()
    memory.plot(voxels, [p.peak_mb / 1e3 for p in points], "s--", color=UPDATE)
    memory.set_ylabel("peak GB of the process", color=UPDATE)
    memory.set_ylim(bottom=0)
