"""Everything that a launch file names exists, from executables to arguments; and RViz hears what is published.

Launch itself is not on pip, so the files run against stand-ins that only record what is said to them.
"""

import re
import runpy
import sys
import types
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields
from pathlib import Path

import pytest
import yaml
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

from threedme_ros.geometry.margins import RESOLUTION_M
from threedme_ros.nodes import prompting
from threedme_ros.nodes.outputs import OUTPUTS
from threedme_ros.nodes.parameters import PerceptionParameters, PlayerParameters
from threedme_ros.nodes.planning_scene_parameters import PlanningSceneParameters
from threedme_ros.nodes.qos import RESULTS

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "threedme_ros"
ARGUMENTS = {"params_file", "checkpoint", "engine", "device", "namespace", "rviz", "autostart", "record"}
ARGUMENTS |= {"moveit", "planning_scene_file"}
PARAMETERS = {"perception": PerceptionParameters, "volume_player": PlayerParameters}
MODULES = (
    "launch",
    "launch.actions",
    "launch.conditions",
    "launch.launch_description_sources",
    "launch.substitutions",
    "launch_ros",
    "launch_ros.actions",
    "launch_ros.parameter_descriptions",
    "launch_ros.substitutions",
)


class Said:
    """One action or substitution: its name and what it was given. Every launch configuration reads "given"."""

    def __init__(self, kind: str, *args, **kwargs):
        self.kind, self.args, self.kwargs = kind, args, kwargs

    def perform(self, context) -> str:
        return "given"


@pytest.fixture
def said(monkeypatch):
    """Run a launch file; all that was said in it, also inside opaque functions."""
    for name in MODULES:
        module = types.ModuleType(name)
        module.__getattr__ = lambda kind: lambda *args, **kwargs: Said(kind, *args, **kwargs)
        monkeypatch.setitem(sys.modules, name, module)

    def read(name: str) -> list[Said]:
        description = runpy.run_path(str(ROOT / "launch" / name))["generate_launch_description"]()
        return list(inside(description))

    return read


def inside(thing) -> Iterator[Said]:
    if isinstance(thing, Said):
        yield thing
        yield from inside([thing.args, thing.kwargs])
        if thing.kind == "OpaqueFunction":
            yield from inside(thing.kwargs["function"](None))
    elif isinstance(thing, dict):
        yield from inside(list(thing.items()))
    elif isinstance(thing, Iterable) and not isinstance(thing, str):
        for part in thing:
            yield from inside(part)


def of_kind(said: list[Said], kind: str) -> list[Said]:
    return [item for item in said if item.kind == kind]


def declared(said: list[Said]) -> set[str]:
    return {item.args[0] for item in of_kind(said, "DeclareLaunchArgument")}


@pytest.fixture(params=["perception.launch.py", "demo.launch.py"])
def launch_file(request):
    return request.param


def test_arguments_are_those_that_are_promised(said):
    robot, demo = declared(said("perception.launch.py")), declared(said("demo.launch.py"))
    assert robot == ARGUMENTS
    assert robot | demo == ARGUMENTS | {"source"}


def test_every_argument_that_is_read_is_declared(said, launch_file):
    everything = said(launch_file)
    known = declared(everything) | declared(said("perception.launch.py"))
    assert {item.args[0] for item in of_kind(everything, "LaunchConfiguration")} <= known


def test_every_file_exists(said, launch_file):
    joins = [item.args[0] for item in of_kind(said(launch_file), "PathJoinSubstitution")]
    ours = [parts[1:] for parts in joins if parts[0].kind == "FindPackageShare" and parts[0].args == (PACKAGE,)]
    assert ours
    for parts in ours:
        assert ROOT.joinpath(*parts).is_file()


def test_every_executable_and_package_exists(said, launch_file):
    scripts = re.findall(r"\b(\w+) = \{PACKAGE\}", (ROOT / "setup.py").read_text())
    depends = [tag.text for tag in ElementTree.parse(ROOT / "package.xml").iter("exec_depend")]
    for node in of_kind(said(launch_file), "Node"):
        if node.kwargs["package"] == PACKAGE:
            assert node.kwargs["executable"] in scripts
        else:
            assert node.kwargs["package"] in depends


def test_every_parameter_exists(said, launch_file):
    for node in of_kind(said(launch_file), "Node"):
        for parameters in node.kwargs.get("parameters", []):
            if isinstance(parameters, dict):
                assert set(parameters) <= {row.name for row in fields(PARAMETERS[node.kwargs["executable"]])}


def test_arguments_left_empty_do_not_override_the_parameter_file(said, monkeypatch):
    monkeypatch.setattr(Said, "perform", lambda self, context: "")
    (node,) = [n for n in of_kind(said("perception.launch.py"), "Node") if n.kwargs["executable"] == "perception"]
    file, overrides = node.kwargs["parameters"]
    assert file.args == ("params_file",)
    assert overrides == {}


@pytest.mark.parametrize(
    ("distribution", "variable"),
    [("jazzy", "FASTRTPS_DEFAULT_PROFILES_FILE"), ("kilted", "FASTDDS_DEFAULT_PROFILES_FILE")],
)
def test_the_transport_profile_goes_where_that_release_looks(said, monkeypatch, distribution, variable):
    monkeypatch.setenv("ROS_DISTRO", distribution)
    (setting,) = of_kind(said("perception.launch.py"), "SetEnvironmentVariable")
    assert setting.args[0] == variable
    assert setting.args[1].args == (variable,)  # what the user has set wins


def test_the_log_says_not_for_clinical_use(said):
    (line,) = of_kind(said("perception.launch.py"), "LogInfo")
    assert "not for clinical use" in line.kwargs["msg"]


@pytest.mark.parametrize(
    ("file", "table"), [("perception.yaml", PerceptionParameters), ("planning_scene.yaml", PlanningSceneParameters)]
)
def test_the_parameter_file_shows_every_parameter_at_its_default(file, table):
    (node,) = yaml.safe_load((ROOT / "config" / file).read_text()).values()
    assert node["ros__parameters"] == asdict(table())


def test_the_octomap_hears_our_obstacles_with_every_key_its_updater_demands():
    sensors = yaml.safe_load((ROOT / "config/sensors_3d.yaml").read_text())
    (name,) = sensors["sensors"]
    demanded = {"point_cloud_topic", "max_range", "point_subsample", "padding_offset", "padding_scale"}
    demanded |= {"max_update_rate", "filtered_cloud_topic", "sensor_plugin"}
    assert set(sensors[name]) == demanded
    assert sensors[name]["point_cloud_topic"] in OUTPUTS
    assert sensors[name]["sensor_plugin"] == "occupancy_map_monitor/PointCloudOctomapUpdater"
    assert sensors["octomap_resolution"] == RESOLUTION_M
    assert all(isinstance(sensors[name][key], float) for key in ("max_range", "padding_offset", "padding_scale"))


def test_rviz_subscribes_to_what_is_published_and_can_be_heard(said):
    config = yaml.safe_load((ROOT / "config/perception.rviz").read_text())["Visualization Manager"]
    shown = {display["Topic"]["Value"]: display for display in config["Displays"] if "Topic" in display}
    for topic, display in shown.items():
        message = {**OUTPUTS, **prompting.OUTPUTS}[topic.lstrip("/")].__name__
        assert display["Class"] == f"rviz_default_plugins/{message}"
        assert display["Topic"]["Reliability Policy"] == "Reliable"
        assert display["Topic"]["Durability Policy"] == "Transient Local"
    assert (RESULTS.reliability, RESULTS.durability) == (ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL)
    assert {topic for topic, display in shown.items() if display["Enabled"]} == {
        "/anatomy/markers",
        "/anatomy/points",
        "/overlay",
        "/prompt/markers",
    }
    assert config["Global Options"]["Fixed Frame"] == "patient"
    (rviz,) = [node for node in of_kind(said("perception.launch.py"), "Node") if node.kwargs["package"] == "rviz2"]
    assert {source for source, _ in rviz.kwargs["remappings"]} == set(shown)


def test_a_volume_fits_the_shared_memory_segment_and_other_hosts_are_reached():
    names = {"n": "http://www.eprosima.com"}
    transports = (
        ElementTree.parse(ROOT / "config/fastdds_shm.xml").getroot().iterfind(".//n:transport_descriptor", names)
    )
    by_type = {transport.findtext("n:type", namespaces=names): transport for transport in transports}
    assert set(by_type) == {"SHM", "UDPv4"}
    assert int(by_type["SHM"].findtext("n:segment_size", namespaces=names)) >= 512 * 512 * 128 * 2
