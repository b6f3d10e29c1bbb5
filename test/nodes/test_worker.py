import threading

from threedme_ros.nodes.watchdog import LeftBehind
from threedme_ros.nodes.worker import LatestSlot, Worker


def test_newest_job_replaces_the_waiting_one():
    slot = LatestSlot()
    assert slot.put("first") is None
    assert slot.put("second") == "first"
    assert slot.take() == "second"
    assert slot.put("third") is None


def test_offered_job_waits_only_in_an_empty_slot():
    slot = LatestSlot()
    slot.offer("offered")
    assert slot.put("put") == "offered"
    slot.offer("offered")
    assert slot.take() == "put"


def test_closed_slot_hands_back_every_job():
    slot = LatestSlot()
    slot.put("waiting")
    assert slot.close() == "waiting"
    assert slot.put("late") == "late"
    slot.offer("late")
    assert slot.take() is None


def test_submit_does_not_wait_for_the_running_job():
    done, running, release = [], threading.Event(), threading.Event()

    def work(job):
        running.set()
        release.wait(5)
        done.append(job)

    worker = Worker(work, "test")
    worker.submit(1)
    assert running.wait(5)
    assert worker.submit(2) is None
    assert worker.submit(3) == 2
    running.clear()
    release.set()
    assert running.wait(5)
    left_behind = LeftBehind()
    assert worker.stop(5, left_behind) is None
    assert left_behind.count == 0
    assert done == [1, 3]


def test_a_thread_that_is_still_busy_is_left_behind_with_the_job_that_waited():
    running, release = threading.Event(), threading.Event()

    def work(job):
        running.set()
        release.wait(5)

    worker, left_behind = Worker(work, "hanging"), LeftBehind()
    worker.submit(1)
    assert running.wait(5)
    worker.submit(2)
    assert worker.stop(0.05, left_behind) == 2
    assert left_behind.count == 1
    release.set()
    assert worker.joined(5)
    assert left_behind.count == 0
