import os
import subprocess
import sys

import pytest

pytest.importorskip("rclpy")
SCRIPT = """
import os, signal, sys, threading, time
import rclpy
from rclpy.node import Node
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


sys.exit(run_node({"half": Half, "stuck": Stuck}[sys.argv[1]], []))
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
