"""What a soak found: figures of its first and last third, and a verdict."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from threedme_ros.nodes.process_facts import ProcessFacts
from threedme_ros.nodes.soak_mix import Sample

MOST_RSS_DRIFT = 0.02
MOST_CPU_RISE = 0.20
"""Of the processor time of the same volumes, last third over first: a leak raises it, and so does, a little, other work
on the machine."""

MOST_LATENCY_RISE = 0.5
LEAST_REPEATS = 3
"""Of a volume in a third, below which its median says nothing."""


@dataclass(frozen=True, eq=False)
class Step:
    """Volumes sent together, what became of them, and the node afterwards. latency_ms: of the last one, from its stamp
    to the end of publishing, as the node says. cpu_ms: the node's processor time. reading: the same volumes came before
    it as before every other reading, so the same engines are loaded: what memory is compared by."""

    samples: tuple[Sample, ...]
    outcomes: Mapping[str, int]
    latency_ms: float
    cpu_ms: float
    facts: ProcessFacts
    reading: bool = False

    @property
    def volumes(self) -> int:
        return len(self.samples)

    @property
    def kind(self) -> str:
        """Of a single volume; "burst" for several."""
        return self.samples[0].kind if len(self.samples) == 1 else "burst"

    @property
    def surprise(self) -> str:
        """Empty if a single volume was segmented or refused, as it should be."""
        if len(self.samples) > 1:
            return ""
        (sample,) = self.samples
        expected = "refused" if sample.refused else "segmented"
        return (
            "" if self.outcomes.get(expected) == 1 else f"{sample.name}: expected {expected}, got {dict(self.outcomes)}"
        )


def report(steps: Sequence[Step], *, minutes: float, sent: int, outcomes: Mapping[str, int], **about) -> dict:
    """As JSON. steps: after the warm-up. sent, outcomes: from the node's start on. about: goes in as it is.

    ``failures`` holds one sentence for each thing that is not as it should be; empty: passed.
    """
    thirds = [list(part) for part in np.array_split(np.array(steps, object), 3)]
    found = {
        **about,
        "volumes": sum(step.volumes for step in steps),
        "minutes": round(minutes, 2),
        "volumes_with_warm_up": sent,
        "outcomes": dict(outcomes),
        "lost_uncounted": sent - sum(outcomes.values()),
        "surprises": [step.surprise for step in steps if step.surprise],
        "by_kind": dict(Counter(sample.kind for step in steps for sample in step.samples)),
        "distinct_good_volumes": len({s.name for step in steps for s in step.samples if not s.refused}),
        "rss_mb": _rss(steps),
        "fds": _held(steps, lambda facts: facts.fds),
        "threads": _held(steps, lambda facts: facts.threads),
        "shared_memory_segments": _held(steps, lambda facts: len(facts.segments)),
        "cpu_ms_a_volume_by_third": [round(float(np.mean([s.cpu_ms / s.volumes for s in t])), 1) for t in thirds],
        "same_volumes": _same_volumes(thirds[0], thirds[-1]),
        "latency_ms_by_third": {
            kind: [_percentiles([s.latency_ms for s in third if s.kind == kind]) for third in thirds]
            for kind in ("small", "large")
        },
    }
    failures = list(_failures(found))
    return {**found, "failures": failures, "passed": not failures}


def _rss(steps: Sequence[Step]) -> dict[str, float | list[float]]:
    """MiB: means of the first and the last tenth of the readings, and all of them, with what of each is shared with
    other processes; max: of every step."""
    readings = [step.facts.rss_mb for step in steps if step.reading]
    tenth = max(1, len(readings) // 10)
    first, last = np.mean(readings[:tenth]), np.mean(readings[-tenth:])
    return {
        "first": round(float(first), 1),
        "last": round(float(last), 1),
        "max": round(max(step.facts.rss_mb for step in steps), 1),
        "drift": round(float(last / first - 1), 4),
        "readings": [round(rss, 1) for rss in readings],
        "shared_of_readings": [round(step.facts.shared_mb, 1) for step in steps if step.reading],
    }


def _held(steps: Sequence[Step], of: Callable[[ProcessFacts], int]) -> dict[str, int]:
    held = [of(step.facts) for step in steps]
    tenth = max(1, len(held) // 10)
    return {"first": max(held[:tenth]), "last": max(held[-tenth:]), "max": max(held)}


def _percentiles(latencies_ms: Sequence[float]) -> dict[str, float | int]:
    if not latencies_ms:
        return {"n": 0}
    p50, p95 = np.percentile(latencies_ms, (50, 95))
    return {"n": len(latencies_ms), "p50": round(float(p50), 1), "p95": round(float(p95), 1)}


def _failures(found: Mapping):
    if found["lost_uncounted"]:
        yield f"{found['lost_uncounted']} volumes are in no count"
    if found["surprises"]:
        yield f"{len(found['surprises'])} volumes got what they should not, e.g. {found['surprises'][0]}"
    if found["rss_mb"]["drift"] > MOST_RSS_DRIFT:
        yield f"memory rose by {found['rss_mb']['drift']:.1%}: expected at most {MOST_RSS_DRIFT:.0%}"
    for what in ("fds", "threads", "shared_memory_segments"):
        if found[what]["last"] > found[what]["first"]:
            yield f"{what} rose from {found[what]['first']} to {found[what]['last']}"
    if found["left_behind"]:
        yield f"left in shared memory: {', '.join(found['left_behind'])}"
    cpu, latency = found["same_volumes"]["cpu_rise"], found["same_volumes"]["latency_rise"]
    if cpu is not None and cpu > MOST_CPU_RISE:
        yield f"the same volumes took {cpu:.0%} more processor time: expected at most {MOST_CPU_RISE:.0%}"
    if latency is not None and latency > MOST_LATENCY_RISE:
        yield f"the same volumes took {latency:.0%} longer: expected at most {MOST_LATENCY_RISE:.0%}"


def _same_volumes(first: Sequence[Step], last: Sequence[Step]) -> dict[str, float | int | None]:
    """How much more the same volumes took in the last third than in the first: medians of each, median over them.

    Thirds differ in their mix, which is drawn; a volume does not differ from itself.
    """
    early, late = _by_volume(first), _by_volume(last)
    both = [n for n in early if min(len(early[n]), len(late.get(n, ()))) >= LEAST_REPEATS]
    rises = {"cpu_rise": lambda step: step.cpu_ms, "latency_rise": lambda step: step.latency_ms}
    found: dict[str, float | int | None] = {"volumes": len(both)}
    for what, of in rises.items():
        medians = [[np.median([of(step) for step in part[name]]) for part in (early, late)] for name in both]
        ratios = [after / before for before, after in medians if before > 0]
        found[what] = round(float(np.median(ratios)) - 1, 4) if ratios else None
    return found


def _by_volume(steps: Sequence[Step]) -> dict[str, list[Step]]:
    found: dict[str, list[Step]] = defaultdict(list)
    for step in steps:
        if len(step.samples) == 1 and not step.samples[0].refused:
            found[step.samples[0].name].append(step)
    return found
