import os
import threading

from threedme_ros.geometry import crew


def test_all_threads_are_there_before_the_first_task():
    crew.relieve()
    before = set(threading.enumerate())  # among them threads of an earlier crew, which end when they like
    crew.muster()
    there = set(threading.enumerate())
    assert len(there - before) == crew.STEPS + crew.THREADS
    assert list(crew.steps_crew().map(lambda n: n * n, range(20))) == [n * n for n in range(20)]
    assert list(crew.meshes_crew().map(str, range(20)))
    assert set(threading.enumerate()) <= there


def test_others_take_over_from_threads_that_hang():
    release = threading.Event()
    first = crew.steps_crew()
    stuck = [first.submit(release.wait, 10) for _ in range(crew.STEPS)]
    crew.relieve()
    assert crew.steps_crew() is not first
    assert crew.steps_crew().submit(str, 7).result(10) == "7"
    release.set()
    assert all(future.result(10) for future in stuck)


def test_a_forked_process_has_threads_of_its_own():
    crew.muster()
    child = os.fork()
    if not child:
        os._exit(0 if crew.steps_crew().submit(str, 7).result(10) == "7" else 1)
    assert os.waitpid(child, 0)[1] == 0
