import subprocess
import sys

import pytest

from threedme_ros.benchmark.timing import Timing, hardware, idle_share, peak_mb, repeat, text_of


def test_median_and_quartiles() -> None:
    timing = Timing.of([5, 1, 2, 4, 3])
    assert timing == Timing(3, 2, 4, 5)
    assert str(Timing.of([0.0451] * 3)) == "45.1 ms (45.1 ms to 45.1 ms, 3 runs)"
    assert text_of(1.234) == "1.23 s"
    with pytest.raises(ValueError, match="no measurement"):
        Timing.of([])


def test_runs_end_at_the_number_or_the_limit_but_there_are_three() -> None:
    calls = []
    assert len(repeat(lambda: calls.append(0), runs=6, limit_s=10)) == len(calls) == 6
    assert len(repeat(lambda: None, runs=6, limit_s=0)) == 3
    assert len(repeat(lambda: None, runs=2, limit_s=0)) == 2


def test_the_machine_is_named() -> None:
    assert "core" in hardware()
    assert 10 < peak_mb() < 1e6
    assert 0 <= idle_share(0.05) <= 1


def test_the_peak_is_this_process_s_own() -> None:
    held = bytearray(1 << 30)
    script = "from threedme_ros.benchmark.timing import peak_mb; print(peak_mb())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert peak_mb() > len(held) / 1e6 > 1000 > float(done.stdout)
