import os
import subprocess
import sys

import pytest

pytest.importorskip("rclpy")
SCRIPT = """
import os, sys
from pathlib import Path
memory = Path("/dev/shm")
before = set(os.listdir(memory))  # port 7000 is one for all domains: whoever opened it first keeps it
import rclpy
from std_msgs.msg import String
from threedme_ros.nodes.lifecycle import ManagedNode
from threedme_ros.nodes.process_facts import process_facts

rclpy.init()
node = ManagedNode("leaving")
publisher = node.create_publisher(String, "something", 10)
own = process_facts(os.getpid()).segments - before
assert own
node.destroy_node()
rclpy.try_shutdown()
print([name for name in own if (memory / name).exists()])
sys.stdout.flush()
os._exit(0)  # as a process with threads that hang ends
"""


def test_a_destroyed_node_leaves_no_shared_memory_even_if_the_interpreter_does_not_end():
    environment = {**os.environ, "ROS_DOMAIN_ID": "97", "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", done.stdout
