"""The SROS 2 policy against the nodes themselves: each is started over DDS, walked to active, and read from the graph.

`make enclaves` runs the same and writes the policy anew.
"""

import os
import re
import socket
import stat
import struct
import subprocess
import sys
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import pytest
from enclave_policy import Enclave, Interface, interface_in_graph, policy_text, read_policy
from lifecycle_msgs.msg import Transition
from rclpy.node import NodeNameNonExistentError

from threedme_ros.share import share_path

POLICY = share_path("config") / "sros2" / "policy.xml"
WRITE = "THREEDME_WRITE_ENCLAVES" in os.environ
NAMESPACE = "/enclave_check"
GRAPH_TIMEOUT_S, QUIET_S = 60.0, 2.0

# Some of what the nodes use is not on pip. Where it is missing, this stands in for it: the types are others, the names
# of topics and services, which alone count here, are the same.
STAND_INS = {
    "moveit_msgs": {
        "__init__.py": "",
        "msg.py": "",
        "srv.py": "from std_srvs.srv import Empty as ApplyPlanningScene, Empty as GetPlanningScene",
    },
    "tf2_msgs": {"__init__.py": "", "msg.py": "from geometry_msgs.msg import TransformStamped as TFMessage"},
    "tf2_ros": {
        "__init__.py": """
from geometry_msgs.msg import TransformStamped

class TransformException(Exception):
    pass

class Buffer:
    def lookup_transform(self, target, source, time):
        raise TransformException(f"{source} is unknown")

class TransformListener:
    def __init__(self, buffer, node):
        for topic in ("/tf", "/tf_static"):
            node.create_subscription(TransformStamped, topic, lambda message: None, 100)
"""
    },
}


@dataclass(frozen=True)
class Started:
    """A node as the test starts it; ``parameters``: those that make it use all it may ever use in this enclave."""

    enclave: str
    node: str
    parameters: dict = field(default_factory=dict)


NODES = [
    Started("perception", "perception", {"autostart": False, "engine": "torch"}),
    Started("volume_player", "volume_player"),
    Started("planning_scene", "planning_scene", {"planning_frame": "base_link"}),
    Started("igtl_bridge", "igtl_bridge", {"port": 0}),
    Started("igtl_bridge_tf", "igtl_bridge", {"port": 0, "publish_tf": True}),
    Started("dicom_receiver", "dicom_receiver", {"port": 0}),
]


@pytest.fixture(scope="module")
def written():
    """The enclaves seen; written to the policy at the end, if that is asked for."""
    enclaves = {}
    yield enclaves
    if WRITE and len(enclaves) == len(NODES):
        POLICY.write_text(policy_text([enclaves[node.enclave] for node in NODES]))


@pytest.fixture(scope="module")
def running(domain, random_checkpoint, tmp_path_factory):
    """Every node, in a namespace of its enclave, so that relative names show."""
    folder = tmp_path_factory.mktemp("stand_ins")
    for package, modules in STAND_INS.items():
        if find_spec(package) is None:
            (folder / package).mkdir()
            for name, text in modules.items():
                (folder / package / name).write_text(text)
    domain.environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
    processes = {}
    ours = segments(os.getpid())
    for node in NODES:
        parameters = dict(node.parameters)
        if node.node == "perception":
            parameters["checkpoint"] = random_checkpoint
            parameters["record"] = domain.folder / "recordings" if find_spec("rosbags") else "''"
        namespace = f"{NAMESPACE}/{node.enclave}"
        processes[node.enclave] = domain.start(node.node, "-r", f"__ns:={namespace}", **parameters)
    domain.segments_of_ours = ours
    return processes


def segments(pid: int) -> set[Path]:
    """The shared memory in which process ``pid`` has messages: its own, and those of whom it listens to."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    return {Path(path) for path in re.findall(r"/dev/shm/fast\w+_[0-9a-f]{16}\b", maps)}


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.enclave)
def test_a_node_uses_exactly_what_its_enclave_allows(domain, running, written, node):
    path = f"/threedme/{node.enclave}"
    expected = Interface() if WRITE else next(e.interface for e in read_policy(POLICY) if e.path == path)
    namespace = f"{NAMESPACE}/{node.enclave}"
    seen = observe(domain, node.node, namespace, expected if node.node != "perception" else Interface())
    if node.node == "perception":
        for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
            assert domain.change_state(f"{namespace}/perception", transition), running[node.enclave].output()
        seen |= observe(domain, node.node, namespace, expected)
    written[node.enclave] = Enclave(path, node.node, seen)
    if not WRITE:
        assert not seen.without(expected), "the policy lacks what the node uses: `make enclaves`, and read what changed"
        assert not expected.without(seen), "the policy allows what the node never uses: `make enclaves`"


def observe(domain, node: str, namespace: str, expected: Interface) -> Interface:
    """All that the node has shown, until nothing new came for a while and, if it can be, all ``expected`` was there."""
    seen, changed = Interface(), time.monotonic()
    end = changed + GRAPH_TIMEOUT_S
    while (now := time.monotonic()) < end and (
        now < changed + QUIET_S or expected.without(seen) or seen == Interface()
    ):
        domain.spin_until(lambda started=now: time.monotonic() > started + 0.1)
        try:
            more = seen | interface_in_graph(domain.node, node, namespace)
        except NodeNameNonExistentError:
            continue
        if more != seen:
            seen, changed = more, time.monotonic()
    return seen


def listening(pid: int) -> set[tuple[str, int]]:
    """(address, port) of every TCP socket on which process ``pid`` accepts connections."""
    inodes = {str(handle.readlink()) for handle in Path(f"/proc/{pid}/fd").iterdir() if handle.is_symlink()}
    found = set()
    for table, size in (("tcp", 4), ("tcp6", 16)):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            columns = line.split()
            if columns[3] == "0A" and f"socket:[{columns[9]}]" in inodes:
                address, port = columns[1].split(":")
                words = struct.unpack(f">{size // 4}I", bytes.fromhex(address))
                family = socket.AF_INET if size == 4 else socket.AF_INET6
                found.add((socket.inet_ntop(family, struct.pack(f"={size // 4}I", *words)), int(port, 16)))
    return found


def test_nodes_listen_on_this_machine_only_and_only_those_that_must(domain, running):
    for enclave in ("igtl_bridge", "igtl_bridge_tf", "dicom_receiver"):
        port = re.search(r"listening on 127\.0\.0\.1:(\d+)", running[enclave].wait_for("listening on"))[1]
        assert listening(running[enclave].popen.pid) == {("127.0.0.1", int(port))}
    for enclave in ("perception", "volume_player", "planning_scene"):
        assert listening(running[enclave].popen.pid) == set()


def test_only_their_user_reads_what_nodes_log(domain, running):
    for process in running.values():
        (log,) = domain.folder.glob(f"*_{process.popen.pid}_*.log")
        assert stat.S_IMODE(log.stat().st_mode) == 0o600


@pytest.mark.skipif(not find_spec("rosbags"), reason="rosbags is not installed: pip install 'threedme_ros[record]'")
def test_only_their_user_reads_what_nodes_record(domain, running):
    recordings = domain.folder / "recordings"
    domain.spin_until(lambda: list(recordings.glob("*/*.db3")), what="nothing is recorded")
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [recordings, *recordings.rglob("*")]}
    assert {modes[path] for path in modes if path.is_dir()} == {0o700}
    assert {modes[path] for path in modes if path.is_file()} == {0o600}


def test_only_their_user_reads_volumes_in_shared_memory(domain, running):
    theirs = set().union(*(segments(process.popen.pid) for process in running.values())) - domain.segments_of_ours
    assert len(theirs) >= len(NODES)
    assert {stat.S_IMODE(path.stat().st_mode) for path in theirs} == {0o600}


def test_the_observer_sees_a_socket_that_is_open_to_all():
    with (
        socket.create_server(("0.0.0.0", 0)) as server,
        socket.create_server(("::", 0), family=socket.AF_INET6) as other,
    ):
        open_to_all = {("0.0.0.0", server.getsockname()[1]), ("::", other.getsockname()[1])}
        assert listening(os.getpid()) >= open_to_all


def test_a_node_that_has_no_keys_ends_with_one_line_and_not_without_security(domain, tmp_path):
    keys = {"ROS_SECURITY_KEYSTORE": str(tmp_path), "ROS_SECURITY_ENABLE": "true", "ROS_SECURITY_STRATEGY": "Enforce"}
    command = [
        sys.executable,
        "-m",
        "threedme_ros.nodes",
        "volume_player",
        "--ros-args",
        "--enclave",
        "/threedme/nobody",
    ]
    done = subprocess.run(
        command, env=domain.environment | keys, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "SECURITY ERROR" in line and "Traceback" not in done.stderr


def who(field: str, name: str) -> set[str]:
    return {e.path.rsplit("/", 1)[-1] for e in read_policy(POLICY) if name in getattr(e.interface, field)}


@pytest.mark.skipif(WRITE, reason="the policy is being written")
class TestPolicy:
    def test_every_node_that_is_installed_has_an_enclave(self):
        scripts = re.findall(r'f"(\w+) = \{PACKAGE\}\.nodes', (Path(__file__).parents[2] / "setup.py").read_text())
        assert {node.node for node in NODES} == set(scripts) == {e.node for e in read_policy(POLICY)}
        assert [e.path for e in read_policy(POLICY)] == [f"/threedme/{node.enclave}" for node in NODES]

    def test_who_may_write_what_a_robot_acts_on(self):
        sources = {"volume_player", "igtl_bridge", "igtl_bridge_tf", "dicom_receiver"}
        assert who("publishes", "volume") == sources
        assert who("subscribes", "volume") == {"perception"}
        for topic in ("labels", "confidence", "anatomy/markers", "anatomy/obstacles", "anatomy/points", "label_info"):
            assert who("publishes", topic) == {"perception"}
        assert who("requests", "/apply_planning_scene") == {"planning_scene"}
        assert who("publishes", "/tf") == {"igtl_bridge_tf"}
        assert who("publishes", "/tf_static") == who("publishes", "/clicked_point") == set()

    def test_no_node_may_change_another_ones_parameters_or_state(self):
        for enclave in read_policy(POLICY):
            asked = enclave.interface.requests
            assert not [name for name in asked if "parameter" in name or "state" in name], enclave.path

    def test_only_the_lifecycle_node_offers_transitions(self):
        assert who("replies", "~/change_state") == {"perception"}


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ('version="0.2.0"', 'version="0.1.0"'),
        ('<topics publish="ALLOW">', '<topics publish="ALLOW" subscribe="ALLOW">'),
        ('<topics publish="ALLOW">', '<topics publish="DENY">'),
        ("<topic>volume</topic>", "<topic>*</topic>"),
        ("<topic>volume</topic>", "<topic>volume</topic><topic>volume</topic>"),
        ("<topic>volume</topic>", "<service>volume</service>"),
        ("</profile>", '<topics publish="ALLOW"><topic>x</topic></topics></profile>'),
        (' ns="/"', ""),
    ],
)
def test_what_the_schema_forbids_is_refused(tmp_path, good, bad):
    text = policy_text([Enclave("/e", "n", Interface(frozenset({"volume"}), replies=frozenset({"~/s"})))])
    (tmp_path / "policy.xml").write_text(text)
    assert read_policy(tmp_path / "policy.xml")[0].interface.replies == {"~/s"}
    assert good in text
    (tmp_path / "policy.xml").write_text(text.replace(good, bad, 1))
    with pytest.raises(ValueError):
        read_policy(tmp_path / "policy.xml")
