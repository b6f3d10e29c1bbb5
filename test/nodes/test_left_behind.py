"""Nodes with a worker that does not come back end all the same, as processes."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("rclpy")
SCRIPT = """
import sys, threading
from importlib import import_module
from types import ModuleType

from std_srvs.srv import Trigger
from threedme_ros.nodes.entry import Finished

name, kind, method = sys.argv[1:]
sys.modules["moveit_msgs"] = ModuleType("moveit_msgs")  # nothing is sent, so any service will do
sys.modules["moveit_msgs.msg"] = sys.modules["moveit_msgs.srv"] = services = ModuleType("moveit_msgs.srv")
services.ApplyPlanningScene = services.GetPlanningScene = Trigger
module = import_module(f"threedme_ros.nodes.{name}")
module.STOP_TIMEOUT_S = 0.05
busy = threading.Event()


def hang(self, *job):
    busy.set()
    threading.Event().wait()


def start(self):
    for worker in [*getattr(self, "_workers", []), getattr(self, "_reader", None)][:1]:
        if worker is not None:
            worker.submit("job")
    busy.wait()
    raise Finished


node = getattr(module, kind)
setattr(node, method, hang)
node.start = start
sys.exit(module.main(["node", "--ros-args", "-p", "port:=0"]))
"""


@pytest.mark.parametrize(
    ("name", "kind", "method", "needs"),
    [
        ("planning_scene", "PlanningScene", "_read", "rclpy"),
        ("igtl_bridge", "IgtlBridge", "_send_labels", "pyigtl"),
        ("dicom_receiver", "DicomReceiver", "_assemble", "pynetdicom"),
    ],
)
def test_a_worker_that_hangs_is_left_behind_and_the_end_is_a_clean_one(name, kind, method, needs):
    pytest.importorskip(needs)
    environment = {**os.environ, "ROS_DOMAIN_ID": "95", "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, name, kind, method],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert "ending with 1 threads that hang" in done.stderr and "Traceback" not in done.stderr
