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


ERRORS = """
import rclpy
from threedme_ros.nodes.lifecycle import ManagedNode

rclpy.init()


class Failing(ManagedNode):
    def fail(self, step):
        if step in self.failing:
            raise RuntimeError(step)

    failing = ()
    configure = activated = lambda self: None
    activate = lambda self: self.fail("activate")
    halt = lambda self: self.fail("halt")
    release = lambda self: self.fail("release")
    went_wrong = lambda self, line: print(line)


node = Failing("failing")


def go(failing, *transitions):
    node.failing = failing
    for transition in transitions:
        getattr(node, f"trigger_{transition}")()
    print(node.state, node._state_machine.current_state[1])


go([], "configure")
go(["activate", "halt"], "activate")
go([], "activate")
go(["halt"], "deactivate")
go([], "configure", "activate")
go(["halt", "release"], "deactivate")
"""


def test_the_state_told_is_the_lifecycles_whatever_fails():
    environment = {**os.environ, "ROS_DOMAIN_ID": "97", "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    done = subprocess.run([sys.executable, "-c", ERRORS], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "inactive inactive",
        "not active: halt",
        "inactive inactive",
        "active active",
        "not inactive: halt",
        "unconfigured unconfigured",
        "active active",
        "not inactive: halt",
        "not unconfigured: release",
        "finalized finalized",
    ]
