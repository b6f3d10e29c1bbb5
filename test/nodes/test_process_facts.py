import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy")
from threedme_ros.nodes.process_facts import left_in_shared_memory, process_facts

HOLDER = """
import mmap, sys, threading, time
file = open(sys.argv[1], "r+b")
held = mmap.mmap(file.fileno(), 4096)
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
data = bytearray(60_000_000)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def segment():
    path = Path(f"/dev/shm/fastdds_{os.getpid():016x}")
    path.write_bytes(bytes(4096))
    yield path
    path.unlink(missing_ok=True)


def test_what_a_process_holds_is_seen_and_what_it_leaves_behind_too(segment):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(segment)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "ready\n"
        facts = process_facts(holder.pid)
        assert facts.segments == {segment.name}
        assert facts.threads == 2 and facts.fds >= 4
        assert 60 < facts.rss_mb < 200
        assert 0 <= facts.cpu_s < 30
        assert left_in_shared_memory({segment.name, f"fastdds_{0:016x}", "fastdds_port7000"}) == []
    finally:
        holder.kill()
        holder.wait()
    assert left_in_shared_memory({segment.name, f"fastdds_{0:016x}", "fastdds_port7000"}) == [segment.name]
    with pytest.raises((FileNotFoundError, ProcessLookupError)):
        process_facts(holder.pid)


def test_processor_time_passes_with_work_and_not_with_sleep():
    before = process_facts(os.getpid()).cpu_s
    end = time.process_time() + 0.2
    while time.process_time() < end:
        sum(range(1000))
    assert 0.1 < process_facts(os.getpid()).cpu_s - before < 5
