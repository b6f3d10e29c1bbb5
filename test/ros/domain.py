"""Real node processes over real DDS, each run in a domain of its own, everything killed and swept up afterwards."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.srv import SetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile

from threedme_ros.anatomy import Anatomy
from threedme_ros.share import share_path

START_TIMEOUT_S = 240.0
STOP_TIMEOUT_S = 60.0
PORTS_A_DOMAIN, FIRST_PORT = 250, 7400
_domains = itertools.count(os.getpid())


@dataclass
class Process:
    """A node under test; its output goes to ``log``."""

    popen: subprocess.Popen
    log: Path

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, text: str, timeout_s: float = START_TIMEOUT_S) -> str:
        """Until the output holds ``text``; returns the output."""
        end = time.monotonic() + timeout_s
        while text not in (output := self.output()):
            if time.monotonic() > end or (self.popen.poll() is not None and text not in self.output()):
                raise AssertionError(f"{text!r} not in the output (exit status {self.popen.poll()}):\n{output}")
            time.sleep(0.02)
        return output

    def interrupt(self) -> int:
        """Ctrl-C; returns the exit status."""
        self.popen.send_signal(signal.SIGINT)
        return self.wait()

    def wait(self) -> int:
        return self.popen.wait(STOP_TIMEOUT_S)


class Domain:
    """One ROS domain on this machine only, with a node of our own in it."""

    def __init__(self, folder: Path) -> None:
        self.id = free_domain()
        self.folder = folder
        self.environment = {
            **os.environ,
            "AMENT_PREFIX_PATH": os.environ.get("AMENT_PREFIX_PATH", sys.prefix),  # the wheels never set it
            "ROS_DOMAIN_ID": str(self.id),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "ROS_LOG_DIR": str(folder),
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": "1",
            "XDG_CACHE_HOME": str(folder),
        }
        self._processes: list[Process] = []
        self._clients: dict[str, object] = {}
        self._segments = shared_memory()
        self.context = Context()
        rclpy.init(context=self.context, domain_id=self.id)
        self.node = rclpy.create_node("probe", context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)

    def start(self, module: str, *arguments: str, environment: dict | None = None, **parameters) -> Process:
        """``python -m threedme_ros.nodes MODULE`` with ROS arguments and parameters; ``environment`` comes on top."""
        log = self.folder / f"{module}_{len(self._processes)}.log"
        command = [sys.executable, "-m", "threedme_ros.nodes", module, "--ros-args", *arguments]
        for name, value in parameters.items():
            command += ["-p", f"{name}:={str(value).lower() if isinstance(value, bool) else value}"]
        with log.open("w") as file:
            popen = subprocess.Popen(
                command, env={**self.environment, **(environment or {})}, stdout=file, stderr=subprocess.STDOUT
            )
        self._processes.append(Process(popen, log))
        return self._processes[-1]

    def collect(self, kind, topic: str, qos: QoSProfile | int) -> list:
        """A list that fills with the messages of ``topic`` while `spin_until` runs."""
        messages = []
        self.node.create_subscription(kind, topic, messages.append, qos)
        return messages

    def spin_until(self, condition, timeout_s: float = 240.0, what: str | Callable[[], str] = "") -> None:
        """Receive until ``condition()`` holds; AssertionError with ``what`` and the last logs if it never does."""
        end = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end:
                logs = "\n".join(p.output()[-3000:] for p in self._processes[-3:])
                raise AssertionError(
                    f"{(what() if callable(what) else what) or 'nothing'} after {timeout_s} s:\n{logs}"
                )
            self._executor.spin_once(timeout_sec=0.05)

    def call(self, kind, service: str, request=None, timeout_s: float = START_TIMEOUT_S):
        client = self._clients.get(service) or self.node.create_client(kind, service)
        self._clients[service] = client
        self.spin_until(client.service_is_ready, timeout_s, f"no service {service}")
        future = client.call_async(request or kind.Request())
        self.spin_until(future.done, timeout_s, f"no answer from {service}")
        return future.result()

    def change_state(self, node: str, transition: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=transition))
        return self.call(ChangeState, f"{node}/change_state", request).success

    def state(self, node: str) -> str:
        return self.call(GetState, f"{node}/get_state").current_state.label

    def set_parameter(self, node: str, name: str, value):
        """The result: ``successful`` and ``reason``."""
        message = ParameterMessage(name=name, value=Parameter(name, value=value).get_parameter_value())
        return self.call(SetParameters, f"{node}/set_parameters", SetParameters.Request(parameters=[message])).results[
            0
        ]

    def late(self, kind, topic: str, qos: QoSProfile | int, timeout_s: float = 240.0):
        """What someone who joins now gets of ``topic`` first."""
        messages = []
        subscription = self.node.create_subscription(kind, topic, messages.append, qos)
        try:
            self.spin_until(lambda: messages, timeout_s, f"nothing latched on {topic}")
        finally:
            self.node.destroy_subscription(subscription)
        return messages[0]

    def rest(self, seconds: float) -> None:
        """Go on receiving for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._executor.spin_once(timeout_sec=0.02)

    def close(self) -> None:
        for process in self._processes:
            if process.popen.poll() is None:
                process.popen.kill()
                process.popen.wait()
        self.node.destroy_node()
        self._executor.shutdown()
        rclpy.shutdown(context=self.context)
        sweep_shared_memory(self._segments)


def free_domain() -> int:
    """A ROS domain in which nobody on this machine is: two runs of these tests must not see each other."""
    used = set()
    for table in ("udp", "udp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            used.add((int(line.split()[1].rpartition(":")[2], 16) - FIRST_PORT) // PORTS_A_DOMAIN)
    return next(number for number in (next(_domains) % 100 + 1 for _ in range(100)) if number not in used)


def random_weights(path: Path) -> Path:
    """A checkpoint at ``path``: the label table of the demo on random weights at 8 mm: quick, and always the same."""
    import torch

    from threedme_ros.model.checkpoint import save_checkpoint
    from threedme_ros.model.config import ModelConfig, Preprocessing
    from threedme_ros.model.threedme import ThreeDME

    anatomy = Anatomy.from_yaml(share_path("config/anatomy.yaml"))
    torch.manual_seed(0)
    model = ThreeDME(ModelConfig("small", anatomy.num_classes))
    torch.nn.init.zeros_(model.decoder.head.bias)  # it starts biased towards background, and these tests want organs
    save_checkpoint(path, model, anatomy, Preprocessing(spacing_mm=(8.0, 8.0, 8.0)), {"training": "none"})
    return path


def shared_memory() -> set[str]:
    return {path.name for path in Path("/dev/shm").glob("*fast*")}


def sweep_shared_memory(before: set[str]) -> None:
    """A killed process leaves its Fast DDS segments behind: remove the new ones that nobody has mapped."""
    mapped = ""
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            mapped += maps.read_text()
        except OSError:  # not ours, or gone
            continue
    for name in shared_memory() - before:
        if name.removesuffix("_el") not in mapped:  # X_el is the lock of segment X: open, never mapped
            (Path("/dev/shm") / name).unlink(missing_ok=True)
