"""The whole benchmark: which measurements, in which order, into one `Report`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from threedme_ros.benchmark.growth import SHAPES, Point, growth_point
from threedme_ros.benchmark.ours import Agreement, PathTimes, agreement, time_path
from threedme_ros.benchmark.peers import PATCH, PEERS, PeerTimes, time_peer
from threedme_ros.benchmark.subject import changed, subject
from threedme_ros.benchmark.timing import hardware, idle_share
from threedme_ros.inference.engines import ENGINES, EngineError, missing_packages
from threedme_ros.inference.incremental import IncrementalSegmenter
from threedme_ros.inference.segmenter import Segmentation, Segmenter
from threedme_ros.model.checkpoint import Checkpoint, load_checkpoint
from threedme_ros.volume import Volume

CLINICAL = ((512, 512, 300), (0.8, 0.8, 1.5))
"""A whole abdomen as a scanner gives it: 157 MB of int16."""

WARM_UPDATES = 3
"""Not timed: the first ones of a process touch memory that the system has still to find."""


@dataclass(frozen=True)
class Plan:
    """What is measured. shape: (R, A, S), at the model's spacing. runs: of each full path. ros: volumes sent, for each
    message size; 0 for none. growth: shapes at the model's spacing. radius_mm: of the resection cavity that an update
    shows; tissue moves within three times that."""

    shape: tuple[int, int, int] = (256, 256, 128)
    runs: int = 7
    updates: int = 8
    radius_mm: float = 12.0
    engines: tuple[tuple[str, str], ...] = (
        ("openvino", "fp32"),
        ("onnxruntime", "auto"),
        ("torch", "fp32"),
        ("tensorrt", "auto"),
    )
    engine_runs: int = 3
    peers: tuple[str, ...] = PEERS
    patch: tuple[int, int, int] = PATCH
    peer_limit_s: float = 120.0
    growth: tuple[tuple[int, int, int], ...] = SHAPES
    clinical: bool = True
    ros: int = 15
    ros_large: int = 6
    soak: int = 0

    @classmethod
    def quick(cls) -> Plan:
        """Everything once, on tiny volumes: it shows that the benchmark works, not how fast anything is."""
        return cls(
            shape=(48, 48, 32), runs=2, updates=2, engines=(), engine_runs=2, peers=("SegResNet-16",),
            patch=(32, 32, 32), growth=((32, 32, 32),), clinical=False, ros=0, ros_large=0,
        )  # fmt: skip

    def steps(self) -> int:
        """Of the progress bar."""
        ros = bool(self.ros) + bool(self.ros_large) + bool(self.soak)
        return 2 + len(self.engines) + len(self.peers) + len(self.growth) + self.clinical + ros


@dataclass
class Report:
    """All figures of one run; ``notes``: what could not be measured and why."""

    hardware: str
    threads: int
    idle: float
    engine: str = ""
    checkpoint: str = ""
    subject: str = ""
    plan: Plan = field(default_factory=Plan)
    full: PathTimes | None = None
    update: PathTimes | None = None
    update_kinds: tuple[str, ...] = ()
    agreements: tuple[Agreement, ...] = ()
    changed_share: tuple[float, ...] = ()
    engines: dict[str, PathTimes] = field(default_factory=dict)
    peers: list[PeerTimes] = field(default_factory=list)
    growth: list[Point] = field(default_factory=list)
    clinical: Point | None = None
    ros: dict[str, object] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def run_benchmark(
    plan: Plan,
    *,
    checkpoint: str | Path,
    engine: str = "auto",
    precision: str = "auto",
    threads: int = 0,
    say: Callable[[str], None] = print,
    step: Callable[[str], None] = lambda what: None,
) -> Report:
    """say: gets lines of text. step: is called before each step with what it measures."""
    import torch

    report = Report(hardware(), threads or torch.get_num_threads(), idle_share(), plan=plan)
    if report.idle < 0.9:
        report.notes.append(f"only {report.idle:.0%} of the processor was idle at the start: others were at work")
    loaded = load_checkpoint(checkpoint)
    report.checkpoint = loaded.hash
    name, used = _ours(report, plan, loaded, engine, precision, threads, step)
    for other, its in plan.engines:
        _engine(report, plan, loaded, other, its, threads, step)
    for peer in plan.peers:
        step(f"{peer} in {name}")
        _noting(report, peer, lambda peer=peer: report.peers.append(_peer(plan, peer, loaded, name, used, threads)))
    place = (str(checkpoint), name, used, threads)
    spacing = loaded.preprocessing.spacing_mm
    for shape in plan.growth:
        step(f"growth: {' x '.join(map(str, shape))}")
        _noting(report, f"growth {shape}", lambda s=shape: report.growth.append(growth_point(s, spacing, *place)))
    if plan.clinical:
        step("growth: a whole abdomen at 0.8 x 0.8 x 1.5 mm")

        def clinical() -> None:
            report.clinical = growth_point(*CLINICAL, *place)

        _noting(report, "clinical volume", clinical)
    _ros(report, plan, loaded, *place, step)
    return report


def _ours(report, plan: Plan, checkpoint: Checkpoint, engine, precision, threads, step) -> tuple[str, str]:
    """Full passes and updates on the preferred engine; returns its name and precision."""
    step("full passes")
    volume, report.subject = subject(plan.shape, checkpoint.preprocessing.spacing_mm)
    segmenter = Segmenter(checkpoint, engine=engine, precision=precision, threads=threads)
    used = segmenter.describe()
    report.engine = f"{used['engine']} {used['precision']}"
    segmenter.warm_up(_model_shape(volume))
    time_path(segmenter, [volume])
    report.full = time_path(segmenter, [volume] * plan.runs)
    step("updates")
    incremental = IncrementalSegmenter(segmenter)
    incremental.warm_up(_model_shape(volume))
    afters = [changed(volume, seed, plan.radius_mm) for seed in range(plan.updates)]
    report.changed_share = tuple(float((volume.voxels != now.voxels).mean()) for now in afters)

    def before() -> None:
        incremental.forget()
        incremental.segment(volume)

    def after(now: Volume, update: Segmentation) -> None:
        report.update_kinds += (update.update,)
        report.agreements += (agreement(update, segmenter.segment(now), volume, now),)

    before()
    for first in afters[:WARM_UPDATES]:
        incremental.segment(first)
    report.update = time_path(incremental, afters, before=before, after=after)
    segmenter.close()
    return used["engine"], used["precision"]


def _engine(report, plan: Plan, checkpoint: Checkpoint, name: str, precision: str, threads: int, step) -> None:
    step(f"engine {name} {precision}")
    if name not in ENGINES or missing_packages(name):
        return
    volume, _ = subject(plan.shape, checkpoint.preprocessing.spacing_mm)

    def measure() -> None:
        segmenter = Segmenter(checkpoint, engine=name, precision=precision, threads=threads)
        used = segmenter.describe()
        label = f"{used['engine']} {used['precision']}"
        if used["engine"] == name and label != report.engine:
            segmenter.segment(volume)
            report.engines[label] = time_path(segmenter, [volume] * plan.engine_runs)
        segmenter.close()

    _noting(report, name, measure)


def _peer(plan: Plan, name: str, checkpoint: Checkpoint, engine: str, precision: str, threads: int) -> PeerTimes:
    volume, _ = subject(plan.shape, checkpoint.preprocessing.spacing_mm)
    return time_peer(
        name, volume, checkpoint, engine=engine, precision=precision, threads=threads, patch=plan.patch,
        limit_s=plan.peer_limit_s,
    )  # fmt: skip


def _ros(report, plan: Plan, checkpoint: Checkpoint, path: str, engine: str, precision: str, threads: int, step):
    if not (plan.ros or plan.ros_large or plan.soak):
        return
    try:
        from threedme_ros.nodes.traffic import run_traffic
    except ModuleNotFoundError as error:
        report.notes.append(f"no ROS figures: {error}")
        return
    volume, _ = subject(plan.shape, checkpoint.preprocessing.spacing_mm)
    options = {"checkpoint": path, "engine": engine, "precision": precision, "threads": threads}
    full = {**options, "incremental": False}
    if plan.ros:
        step("ROS: 16.8 MB")
        _noting(report, "ROS", lambda: report.ros.__setitem__("16.8MB", run_traffic([volume], plan.ros, **full)))
    if plan.ros_large:
        step("ROS: 157 MB")
        large, _ = subject(*CLINICAL)
        _noting(report, "ROS", lambda: report.ros.__setitem__("157MB", run_traffic([large], plan.ros_large, **full)))
    if plan.soak:
        step(f"ROS: {plan.soak} volumes")
        _noting(report, "ROS", lambda: report.ros.__setitem__("soak", run_traffic([volume], plan.soak, **full)))


def _model_shape(volume) -> tuple[int, int, int]:
    return volume.shape[::-1]


def _noting(report: Report, what: str, work: Callable[[], None]) -> None:
    """A measurement that fails costs its own row only."""
    try:
        work()
    except (EngineError, RuntimeError, ModuleNotFoundError, OSError, ValueError) as error:
        report.notes.append(f"{what}: {' '.join(str(error).split())[:300]}")
