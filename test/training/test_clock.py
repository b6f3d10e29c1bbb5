import time

from threedme_ros.training.clock import Stopwatch


def test_waiting_counts_on_the_wall_only():
    watch = Stopwatch("cpu")
    time.sleep(0.2)
    on_clock, on_wall = watch.lap()
    assert on_wall >= 0.2 and on_clock < 0.1


def test_work_counts_on_both_and_a_lap_begins_where_the_last_ended():
    watch = Stopwatch("cpu")
    began = time.process_time()
    while time.process_time() - began < 0.05:
        pass
    on_clock, on_wall = watch.lap()
    assert on_clock >= 0.05 and on_wall >= 0.04  # a virtual machine's two clocks drift apart by some percent
    assert watch.lap()[0] < 0.05
