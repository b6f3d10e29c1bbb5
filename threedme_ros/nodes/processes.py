"""Node processes of ours in one ROS domain of this machine, started, watched and stopped from a node of our own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor

from threedme_ros.share import share_path

STOP_TIMEOUT_S = 30.0
# Fast DDS 3 renamed the variable and warns about the old name; 2.14 (Jazzy) knows only the old one.
PROFILES = (
    "FASTRTPS_DEFAULT_PROFILES_FILE" if os.environ.get("ROS_DISTRO") == "jazzy" else "FASTDDS_DEFAULT_PROFILES_FILE"
)


class DemoError(RuntimeError):
    """The run cannot go on; the message holds what the process that failed said last."""


class NodeProcesses:
    """Node processes in one ROS domain of this machine, and our own node in it; all gone at the end of ``with``.

    name: of our own node. shared_memory: large messages through shared memory, as the launch files choose it.
    """

    def __init__(self, folder: Path, *, name: str = "demo", shared_memory: bool = False) -> None:
        self.folder, self.name = folder, name
        self.domain_id = int(os.environ.get("ROS_DOMAIN_ID", os.getpid() % 100 + 1))
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"  # for us and for the processes
        if shared_memory:
            os.environ.setdefault(PROFILES, str(share_path("config/fastdds_shm.xml")))
        self.environment = {
            **os.environ,
            "ROS_DOMAIN_ID": str(self.domain_id),
            "ROS_LOG_DIR": str(folder),
            "PYTHONUNBUFFERED": "1",
        }
        self._running: list[NodeProcess] = []

    def __enter__(self) -> NodeProcesses:
        self.context = Context()
        rclpy.init(context=self.context, domain_id=self.domain_id)
        self.node = rclpy.create_node(self.name, context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        return self

    def __exit__(self, *exception) -> None:
        for process in list(self._running):
            self.stop(process)
        self.node.destroy_node()
        self.executor.shutdown()
        rclpy.shutdown(context=self.context)

    def start(self, module: str, **parameters) -> NodeProcess:
        log = self.folder / f"{module}.log"
        command = [sys.executable, "-m", "threedme_ros.nodes", module, "--ros-args"]
        for name, value in parameters.items():
            command += ["-p", f"{name}:={json.dumps(value)}"]
        with log.open("w") as file:
            popen = subprocess.Popen(command, env=self.environment, stdout=file, stderr=subprocess.STDOUT)
        self._running.append(NodeProcess(module, popen, log))
        return self._running[-1]

    def stop(self, process: NodeProcess) -> str:
        """Ctrl-C, and a kill if that does not help; returns the process's output."""
        self._running.remove(process)
        if process.popen.poll() is None:
            process.popen.send_signal(signal.SIGINT)
        try:
            process.popen.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.popen.kill()
            process.popen.wait()
        return process.log.read_text(errors="replace")

    def check(self) -> None:
        """DemoError if one has ended by itself."""
        for process in self._running:
            if (status := process.popen.poll()) is not None:
                raise DemoError(f"{process.name} ended with exit status {status}:\n{self.last_words()}")

    def last_words(self) -> str:
        return "\n".join(p.log.read_text(errors="replace")[-2000:].strip() for p in self._running)


@dataclass
class NodeProcess:
    name: str
    popen: subprocess.Popen
    log: Path
