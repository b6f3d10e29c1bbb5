import os
import subprocess
import sys

import pytest

pytest.importorskip("rclpy")
SCRIPT = """
import os, signal, sys, threading, time
import rclpy
from rclpy.node import Node
from rclpy.subscription import RCLError
from std_msgs.msg import String
from threedme_ros.nodes.entry import Finished, run_node


class Half(Node):
    def __init__(self):
        super().__init__("half")
        os.kill(os.getpid(), signal.SIGTERM)
        while rclpy.ok():
            time.sleep(0.01)
        self.create_publisher(Node, "never", 10)


class Stuck(Node):
    threads_left_behind = 1

    def __init__(self):
        super().__init__("stuck")
        threading.Thread(target=threading.Event().wait).start()  # not even a daemon

    def start(self):
        raise Finished


class Publishing(Node):
    def __init__(self):
        super().__init__("publishing")
        self.out = self.create_publisher(String, "out", 1)
        self.create_timer(0.01, self.tick)

    def tick(self):
        os.kill(os.getpid(), signal.SIGTERM)
        while rclpy.ok():
            time.sleep(0.01)
        self.out.publish(String())


class Wrong(Node):
    def __init__(self):
        super().__init__("wrong")

    def start(self):
        raise RCLError("not because of a signal")

    def close(self):
        for ending in (signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), ending)
        raise ZeroDivisionError

    def destroy_node(self):
        super().destroy_node()
        print("destroyed")


nodes = {"half": Half, "stuck": Stuck, "publishing": Publishing, "wrong": Wrong}
try:
    sys.exit(run_node(nodes[sys.argv[1]], []))
finally:
    print("shut down" if not rclpy.ok() else "not shut down")
"""


def run(what: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "ROS_DOMAIN_ID": "96", "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, what], env=environment, capture_output=True, text=True, timeout=240
    )


def test_a_signal_while_the_node_is_being_made_is_a_clean_end():
    done = run("half")
    assert (done.returncode, done.stdout) == (0, "")
    assert "Traceback" not in done.stderr


def test_threads_that_hang_do_not_keep_the_process():
    done = run("stuck")
    assert done.returncode == 0
    assert "ending with 1 threads that hang" in done.stderr


def test_a_signal_inside_a_callback_that_publishes_is_a_clean_end():
    done = run("publishing")
    assert (done.returncode, done.stdout) == (0, "shut down\n")
    assert "Traceback" not in done.stderr


def test_the_whole_release_happens_whatever_is_raised_and_whatever_signal_comes():
    done = run("wrong")
    assert (done.returncode, done.stdout) == (1, "destroyed\nshut down\n")
    assert "not because of a signal" in done.stderr
    assert "ZeroDivisionError" in done.stderr
