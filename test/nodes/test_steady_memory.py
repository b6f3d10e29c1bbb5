import subprocess
import sys

import pytest

SCRIPT = """
import re
import numpy as np
from threedme_ros.nodes.steady_memory import keep_memory_steady
keep_memory_steady()
rss = lambda: int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
np.ones(40 << 20, np.uint8)  # glibc would now take smaller arrays from its heap
before = rss()
kept = [(np.ones(8 << 20, np.uint8), bytearray(100)) for _ in range(20)]
kept = [small for _, small in kept]  # pins the top of the heap
print(rss() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_large_arrays_go_back_though_small_ones_stay():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 16
