"""Memory, descriptors and disk that run out."""

import os
import resource
import subprocess
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticStatus
from scenario import Scenario
from theatre import BESIDE, LARGE, SMALL, WAIT_S, Afterwards, killed, well

OUTCOMES = ("segmented", "failed")
UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


class MemoryLimit(Scenario):
    name = "memory limit (RLIMIT_AS) during inference"
    expected = (
        "volumes are segmented, in smaller windows if need be, or told as failed; the node lives, and is well again"
    )
    slow = True  # libraries that wait for memory for ever (CPython's threads, OpenBLAS) are left to the watchdog
    afterwards = Afterwards.OTHER_STATE  # and past max_hangs it deactivates itself

    def inject(self, theatre, chance):
        theatre.node.segment(SMALL)
        node = theatre.node
        before = node.count("segmented"), node.count("failed")
        pages = Path(f"/proc/{theatre.pid}/statm").read_text().split()[0]
        size = int(pages) * os.sysconf("SC_PAGE_SIZE")
        spare = chance.choice((0, 1, 4, 16, 64)) * 2**20
        self.spare_mb = spare >> 20
        theatre.send(LARGE)
        theatre.domain.rest(chance.uniform(0.0, 0.3))
        resource.prlimit(theatre.pid, resource.RLIMIT_AS, (size + spare, resource.RLIM_INFINITY))
        theatre.send(LARGE)
        outcome = lambda: node.count("segmented") + node.count("failed") >= sum(before) + 2  # noqa: E731
        theatre.domain.spin_until(
            lambda: outcome() or not theatre.alive, WAIT_S, lambda: f"nothing told: {node.diagnostics}"
        )
        self.failed = node.count("failed") - before[1]
        self.said, self.segmented_before = node.diagnostics, before[0]

    def verify(self, theatre):
        assert theatre.alive, theatre.output()[-3000:]
        if self.failed:
            assert self.said["last_error"], self.said
            recovered = self.failed < 2 and int(self.said["volumes_segmented"]) > self.segmented_before
            assert self.said["level"] == DiagnosticStatus.ERROR or recovered, self.said
        resource.prlimit(theatre.pid, resource.RLIMIT_AS, UNLIMITED)
        theatre.settled()
        return f"{self.spare_mb} MiB to spare: {2 - self.failed} of 2 segmented, {self.failed} failed and told"

    def clear(self, theatre):
        if theatre.alive:
            resource.prlimit(theatre.pid, resource.RLIMIT_AS, UNLIMITED)


class NoDescriptors(Scenario):
    name = "no descriptor left (RLIMIT_NOFILE) during inference"
    expected = "the node lives, every volume is segmented or told as failed, and it is well again"
    afterwards = Afterwards.OTHER_ENGINE  # one that cannot open a file is refused

    def inject(self, theatre, chance):
        self.limits = resource.prlimit(theatre.pid, resource.RLIMIT_NOFILE)
        self.before = theatre.node.count("segmented"), theatre.node.count("failed")
        seen = theatre.node.count("seen")
        used = max(int(fd.name) for fd in Path(f"/proc/{theatre.pid}/fd").iterdir())
        resource.prlimit(theatre.pid, resource.RLIMIT_NOFILE, (used + 1, self.limits[1]))
        for _ in range(3):
            theatre.send()
            theatre.domain.rest(chance.uniform(0.0, 0.3))
        theatre.counted("seen", seen + 1)
        theatre.settled()

    def verify(self, theatre):
        assert theatre.alive, theatre.output()[-3000:]
        self.clear(theatre)
        segmented, failed = (theatre.node.count(what) - n for what, n in zip(OUTCOMES, self.before, strict=True))
        assert segmented + failed > 0, theatre.node.diagnostics
        assert not failed or theatre.node.diagnostics["last_error"]
        return f"{segmented} segmented, {failed} failed and told, the others replaced by newer ones"

    def clear(self, theatre):
        if theatre.alive:
            resource.prlimit(theatre.pid, resource.RLIMIT_NOFILE, self.limits)


class DiskFull(Scenario):
    name = "full disk at engine build, and under the log"
    expected = "the engine runs without its cache, diagnostics or log say that it could not be written"
    slow = True
    process = None

    def possible(self):
        return "" if os.geteuid() == 0 else "only root can mount a small file system"

    def inject(self, theatre, chance):
        self.folder = theatre.folder / "full"
        self.folder.mkdir(exist_ok=True)
        size_kb = chance.choice((8, 16, 64))
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_kb}k", "none", self.folder], check=True)
        with (self.folder / "filler").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        environment = {"XDG_CACHE_HOME": str(self.folder), "ROS_LOG_DIR": str(self.folder)}
        self.process = theatre.start("-r", f"__ns:={BESIDE}", environment=environment)
        self.node = theatre.adopt_beside(self.process)

    def verify(self, theatre):
        self.node.wait_for_subscription()
        theatre.domain.rest(0.5)
        self.node.segment(SMALL)
        said = self.node.refresh()
        well(said)
        assert "No space left on device" in self.process.output(), self.process.output()[-3000:]
        return f"{said['engine']} segmented; the log names the full disk"

    def clear(self, theatre):
        if self.process:
            killed(self.process)
        subprocess.run(["umount", self.folder], check=False)


SCENARIOS = (MemoryLimit, NoDescriptors, DiskFull)
