"""What a process of this machine holds, from /proc: memory, descriptors, threads, shared memory, processor time."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

SHARED_MEMORY = "/dev/shm/"
DATA_SEGMENT = re.compile(r"fast\w+_[0-9a-f]{16}")
"""Of Fast DDS, by the middleware's own naming."""


@dataclass(frozen=True)
class ProcessFacts:
    """rss_mb: resident memory, MiB; shared_mb: of it, memory shared with other processes. fds, threads: how many.
    cpu_s: used so far, s. segments: files of Fast DDS in /dev/shm that it has mapped or open."""

    rss_mb: float
    fds: int
    threads: int
    cpu_s: float
    segments: frozenset[str]
    shared_mb: float = 0.0


def left_in_shared_memory(names: set[str]) -> list[str]:
    """Which data segments among ``names`` are still in /dev/shm though no living process holds them.

    A segment is its process's own; the ports beside them are shared by all nodes of the machine.
    """
    left = {name for name in names if DATA_SEGMENT.fullmatch(name) and (Path(SHARED_MEMORY) / name).exists()}
    for folder in Path("/proc").glob("[0-9]*") if left else ():
        try:
            left -= _mapped(folder) | _open(list((folder / "fd").iterdir()))
        except OSError:  # gone meanwhile, or not ours to look at
            continue
    return sorted(left)


def process_facts(pid: int) -> ProcessFacts:
    """Of ``pid`` now. ProcessLookupError or FileNotFoundError if it is gone."""
    folder = Path(f"/proc/{pid}")
    status = (folder / "status").read_text()
    times = (folder / "stat").read_text().rpartition(")")[2].split()  # the name before it may hold anything
    user, system = int(times[11]), int(times[12])
    fds = list((folder / "fd").iterdir())
    return ProcessFacts(
        rss_mb=_number(status, "VmRSS") / 1024,
        fds=len(fds),
        threads=int(_number(status, "Threads")),
        cpu_s=(user + system) / os.sysconf("SC_CLK_TCK"),
        segments=frozenset(name for name in _mapped(folder) | _open(fds) if "fast" in name),
        shared_mb=_number(status, "RssShmem") / 1024,
    )


def _number(status: str, name: str) -> float:
    found = re.search(rf"^{name}:\s+(\d+)", status, re.MULTILINE)
    return float(found.group(1)) if found else 0.0


def _mapped(folder: Path) -> set[str]:
    lines = (folder / "maps").read_text(errors="replace").splitlines()
    return {line.partition(SHARED_MEMORY)[2].removesuffix(" (deleted)") for line in lines if SHARED_MEMORY in line}


def _open(fds: list[Path]) -> set[str]:
    names = set()
    for fd in fds:
        try:
            target = str(fd.readlink())
        except FileNotFoundError:  # closed meanwhile
            continue
        if target.startswith(SHARED_MEMORY):
            names.add(target.removeprefix(SHARED_MEMORY).removesuffix(" (deleted)"))
    return names
