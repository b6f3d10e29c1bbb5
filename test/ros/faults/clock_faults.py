"""Clocks that jump: simulated time, and the system's clock as one process sees it (a preloaded library moves it)."""

import ctypes
import mmap
import shutil
import subprocess

from builtin_interfaces.msg import Time
from rosgraph_msgs.msg import Clock
from scenario import Scenario
from theatre import BESIDE, NAME, SMALL, WAIT_S, killed, well

from threedme_ros.nodes.messages import volume_message

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

static volatile long long *offset_s;

static int (*real)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CLOCK_OFFSET");
    int file = path ? open(path, O_RDONLY) : -1;
    real = dlsym(RTLD_NEXT, "clock_gettime");
    void *page = file < 0 ? MAP_FAILED : mmap(0, sizeof *offset_s, PROT_READ, MAP_SHARED, file, 0);
    if (page != MAP_FAILED) offset_s = page;
}

int clock_gettime(clockid_t id, struct timespec *time) {
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(id, time);
    if (!failed && id == CLOCK_REALTIME && offset_s) time->tv_sec += *offset_s;
    return failed;
}
"""


def sound(said: dict[str, str]) -> None:
    """No age and no latency is negative."""
    for key in ("age_of_last_result_s", "stamp_to_publish_last_ms", "stamp_to_publish_p50_ms"):
        assert said[key] == "" or float(said[key]) >= 0, said


class SimulatedTimeJumps(Scenario):
    name = "simulated time starts, jumps forward and back, and stops"
    expected = "volumes are segmented on, ages and latencies never negative, diagnostics and obstacles go on"

    def inject(self, theatre, chance):
        self.topic = theatre.domain.node.create_publisher(Clock, "/clock", 10)
        assert theatre.domain.set_parameter(NAME, "use_sim_time", True).successful
        self.jumps = [chance.randrange(1, 10**9) for _ in range(3)]
        for second in (*self.jumps, self.jumps[-1] // 2, 1):
            self.topic.publish(Clock(clock=Time(sec=second)))
            theatre.domain.rest(0.1)
            segmented = theatre.node.count("segmented")
            theatre.send(stamp=Time(sec=second))
            theatre.counted("segmented", segmented + 1)
            sound(theatre.node.diagnostics)

    def verify(self, theatre):
        obstacles = len(theatre.node.received["anatomy/obstacles"])
        sound(theatre.node.refresh())  # time stands still now, diagnostics must not
        theatre.domain.spin_until(
            lambda: len(theatre.node.received["anatomy/obstacles"]) > obstacles, what="obstacles stopped with the clock"
        )
        assert "Traceback" not in theatre.output()
        theatre.settled()
        return f"5 volumes segmented over jumps to {self.jumps} s and back; nothing negative"

    def clear(self, theatre):
        theatre.domain.set_parameter(NAME, "use_sim_time", False)
        theatre.domain.node.destroy_publisher(self.topic)


class SystemClockSteps(Scenario):
    name = "the system's clock is set back and forward"
    expected = SimulatedTimeJumps.expected
    slow = True
    process = None

    def possible(self):
        return "" if shutil.which("gcc") else "no gcc, to build the library that moves one process's clock"

    def inject(self, theatre, chance):
        library, self.file = theatre.folder / "clock.so", theatre.folder / "clock.offset"
        if not library.exists():
            source = theatre.folder / "clock.c"
            source.write_text(SHIM)
            subprocess.run(["gcc", "-shared", "-fPIC", "-O1", source, "-o", library, "-ldl"], check=True)
        self.step(0)
        environment = {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(self.file)}
        self.process = theatre.start("-r", f"__ns:={BESIDE}", environment=environment)
        self.node = theatre.adopt_beside(self.process)
        self.node.wait_for_subscription()
        theatre.domain.rest(0.5)
        # behind the kernel's clock all the time: one that ran ahead of it would make every timed wait too long
        self.steps = [*(-chance.randrange(10, 10**6) for _ in range(3)), 0]
        for number, offset_s in enumerate(self.steps):
            self.step(offset_s)
            self.node.send(volume_message(SMALL, theatre.domain.node.get_clock().now().to_msg()))
            done = lambda number=number: self.node.count("segmented") > number  # noqa: E731
            theatre.domain.spin_until(done, WAIT_S, f"not segmented after a step of {offset_s} s")
            sound(self.node.refresh())

    def verify(self, theatre):
        obstacles = len(self.node.received["anatomy/obstacles"])
        theatre.domain.spin_until(
            lambda: len(self.node.received["anatomy/obstacles"]) > obstacles + 1, what="obstacles stopped"
        )
        said = self.node.refresh()
        well(said)
        assert said["volumes_failed"] == "0", said
        assert int(said["stamps_ahead"]) >= 1, said  # seen from the clock that was set back
        assert "Traceback" not in self.process.output()
        return f"4 volumes segmented over steps of {self.steps} s; nothing negative"

    def step(self, seconds: int) -> None:
        if not self.file.exists():
            self.file.write_bytes(bytes(8))
        with self.file.open("r+b") as file, mmap.mmap(file.fileno(), 8) as page:
            page[:] = bytes(ctypes.c_longlong(seconds))

    def clear(self, theatre):
        if self.process:
            killed(self.process)


SCENARIOS = (SimulatedTimeJumps, SystemClockSteps)
