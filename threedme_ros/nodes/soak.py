"""A soak: volumes of every kind at the highest rate the node takes, and what of it leaks, slows down or gets lost."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from threedme_ros.nodes.process_facts import ProcessFacts, left_in_shared_memory, process_facts
from threedme_ros.nodes.processes import DemoError, NodeProcess, NodeProcesses
from threedme_ros.nodes.soak_mix import Sample, endless, make_pool
from threedme_ros.nodes.soak_report import Step, report
from threedme_ros.nodes.traffic import OUTCOMES, SETTLE_S, Probe

__all__ = ["DemoError", "SoakPlan", "run_soak"]

MOST_BURST_GAP_S = 0.03
READING_EVERY, READING_VOLUMES = 100, 4
"""Volumes between two readings of the memory; and those before each, of as many fields as an engine keeps built."""

LARGE_ROUNDS = 3
"""More of the large volumes in the warm-up: memory that is shared with us is ours to fill and the node's to read, up to
134 MB (config/fastdds_shm.xml), and counts as the node's once it has read there."""

PATIENCE_S = 1800.0
"""A soak may share its machine with other work: a build or a volume that waits for its turn is no hang."""


@dataclass(frozen=True)
class SoakPlan:
    """At least so many volumes, and at least so long, after a warm-up of every volume of the pool once; but no longer
    than most_minutes, with what was done by then.

    small, large: volumes in the pool; see `threedme_ros.nodes.soak_mix.make_pool`.
    """

    volumes: int = 2000
    minutes: float = 20.0
    most_minutes: float = 240.0
    small: int = 96
    large: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.volumes < 1 or self.minutes < 0 or self.most_minutes < self.minutes or self.small < 1 or self.large < 0:
            raise ValueError(f"{self}: expected a volume, no negative number, minutes up to most_minutes")


def run_soak(
    plan: SoakPlan,
    spacing_mm: tuple[float, float, float],
    progress: Callable[[int, float], None] = lambda volumes, minutes: None,
    **parameters,
) -> dict:
    """What was found, as JSON; see `threedme_ros.nodes.soak_report.report`.

    spacing_mm: of the checkpoint. progress: hears of volumes sent, below zero in the warm-up, and minutes gone by.
    parameters: of the perception node. Raises DemoError if a process ends or nothing comes back.
    """
    rng = np.random.default_rng(plan.seed)
    pool = make_pool(spacing_mm, plan.small, plan.large, rng)
    with (
        tempfile.TemporaryDirectory(prefix="threedme_soak_") as folder,
        NodeProcesses(Path(folder), name="soak", shared_memory=True) as processes,
    ):
        soak = _started(processes, parameters)
        warm_up = [sample for samples in pool.values() for sample in samples] + pool["large"] * LARGE_ROUNDS
        for number, sample in enumerate(warm_up):
            soak.send([sample])
            progress(number + 1 - len(warm_up), 0.0)
        soak.steps.clear()
        soak.read(pool["small"][:READING_VOLUMES])
        began, bursts = time.monotonic(), endless(pool, rng)
        minutes, read = 0.0, 0
        while (soak.counted < plan.volumes or minutes < plan.minutes) and minutes < plan.most_minutes:
            soak.send(next(bursts), gap_s=float(rng.uniform(0, MOST_BURST_GAP_S)))
            minutes = (time.monotonic() - began) / 60
            progress(soak.counted, minutes)
            if soak.counted // READING_EVERY > read:
                soak.read(pool["small"][:READING_VOLUMES])
                read = soak.counted // READING_EVERY
        soak.read(pool["small"][:READING_VOLUMES])
        progress(soak.counted, minutes)
        log_lines = len(soak.node.log.read_text(errors="replace").splitlines())
    return report(
        soak.steps,
        minutes=minutes,
        sent=soak.sent,
        outcomes={outcome: soak.probe.count(outcome) for outcome in OUTCOMES},
        engine={key: soak.probe.values[key] for key in ("engine", "precision", "device", "checkpoint", "refused")},
        pool={kind: len(samples) for kind, samples in pool.items()},
        log_lines=log_lines,
        left_behind=left_in_shared_memory(soak.segments),
    )


@dataclass
class _Soak:
    probe: Probe
    node: NodeProcess
    clock: Callable
    sent: int = 0
    steps: list[Step] = field(default_factory=list)
    segments: set[str] = field(default_factory=set)

    @property
    def counted(self) -> int:
        """Sent since the warm-up."""
        return sum(step.volumes for step in self.steps)

    def send(self, samples: list[Sample], gap_s: float = 0.0) -> None:
        """Publish ``samples``, ``gap_s`` apart, and wait until the node has accounted for every one."""
        before = {outcome: self.probe.count(outcome) for outcome in OUTCOMES}
        cpu_s = self._facts().cpu_s
        for sample in samples:
            if not sample.untimed:
                sample.message.header.stamp = self.clock().to_msg()
            self.probe.publish(sample.message)
            self.sent += 1
            if gap_s and sample is not samples[-1]:
                time.sleep(gap_s)
        done = lambda: self.probe.accounted >= self.sent  # noqa: E731
        self.probe.wait(done, PATIENCE_S, f"{self.sent} volumes to be accounted for")
        facts = self._facts()
        outcomes = {outcome: self.probe.count(outcome) - n for outcome, n in before.items()}
        latency_ms = float(self.probe.values["stamp_to_publish_last_ms"] or "nan")
        self.steps.append(Step(tuple(samples), outcomes, latency_ms, (facts.cpu_s - cpu_s) * 1000, facts))

    def read(self, volumes: list[Sample]) -> None:
        """Bring the node's engines to a known state, by ``volumes``; what it holds then can be compared."""
        for volume in volumes:
            self.send([volume])
        self.steps[-1] = replace(self.steps[-1], reading=True)

    def _facts(self) -> ProcessFacts:
        facts = process_facts(self.node.popen.pid)
        self.segments |= facts.segments
        return facts


def _started(processes: NodeProcesses, parameters: dict) -> _Soak:
    """A node that is active and hears us."""
    patient = {"hang_after_s": PATIENCE_S, "build_timeout_s": PATIENCE_S}
    node = processes.start("perception", **patient, **parameters)
    probe = Probe(processes)
    probe.wait(lambda: probe.values.get("state") == "active", PATIENCE_S, "the node to be active")
    probe.wait(lambda: probe.values.get("volume_sources") == "1", PATIENCE_S, "the node to see our volumes")
    probe.rest(SETTLE_S)
    return _Soak(probe, node, processes.node.get_clock().now)
