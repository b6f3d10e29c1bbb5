"""package.xml, setup.py, setup.cfg and the constraints agree, and name what is there."""

import ast
import configparser
import importlib
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import setuptools

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "threedme_ros"
CONSTRAINT_FILES = ("constraints.txt", "constraints-apt.txt")
# Where the distribution is not called as what it lets one import.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "nrrd": "pynrrd",
    "vtkmodules": "vtk",
    "yaml": "pyyaml",
}
FROM_ROS = re.compile(r"rclpy|cv_bridge|tf2_ros|\w+_msgs|\w+_interfaces|std_srvs|ament_index_python|launch\w*")


@pytest.fixture(scope="module")
def setup_arguments():
    """What setup.py hands to setuptools, without building anything."""
    with pytest.MonkeyPatch.context() as patch:
        arguments = {}
        patch.setattr(setuptools, "setup", arguments.update)
        patch.chdir(ROOT)
        path = ROOT / "setup.py"
        exec(compile(path.read_text(), path, "exec"), {"__file__": str(path)})
    return arguments


@pytest.fixture(scope="module")
def manifest():
    return ElementTree.parse(ROOT / "package.xml").getroot()


def distribution(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")


def pins(name: str) -> dict[str, str]:
    lines = [line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    return {distribution(line): line.split("==")[1] for line in lines if line}


def imported_packages() -> set[str]:
    """Top-level names that the package's modules import, wherever the import stands."""
    names = set()
    for path in (ROOT / PACKAGE).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(node.module.split(".")[0])
    return names


def test_name_version_and_licence_are_the_same_everywhere(setup_arguments, manifest):
    module = importlib.import_module(PACKAGE)
    assert manifest.get("format") == "3"
    assert manifest.findtext("name") == setup_arguments["name"] == PACKAGE
    assert manifest.findtext("version") == setup_arguments["version"] == module.__version__
    assert manifest.findtext("license") == setup_arguments["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert manifest.findtext("export/build_type") == "ament_python"


def test_scripts_go_where_ros2_run_looks_and_run_under_the_active_environment():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert config["install"]["install_scripts"] == config["develop"]["script_dir"] == f"$base/lib/{PACKAGE}"
    assert config["build_scripts"]["executable"] == "/usr/bin/env python3"


def test_console_scripts_point_at_functions(setup_arguments):
    scripts = dict(entry.split(" = ") for entry in setup_arguments["entry_points"]["console_scripts"])
    assert set(scripts) == {
        "threedme",
        "perception",
        "volume_player",
        "igtl_bridge",
        "dicom_receiver",
        "planning_scene",
    }
    for target in scripts.values():
        module, function = target.split(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_all_shared_files_are_installed(setup_arguments):
    installed = {path for _, paths in setup_arguments["data_files"] for path in paths}
    assert {f"resource/{PACKAGE}", "package.xml"} <= installed
    for folder in ("launch", "config", "models"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert path.relative_to(ROOT).as_posix() in installed


def test_all_subpackages_are_installed(setup_arguments):
    folders = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / PACKAGE).rglob("*.py")}
    assert set(setup_arguments["packages"]) == {folder.replace("/", ".") for folder in folders}


def test_every_imported_package_is_declared(setup_arguments, manifest):
    groups = [setup_arguments["install_requires"], *setup_arguments["extras_require"].values()]
    declared = {distribution(requirement) for group in groups for requirement in group}
    depends = {tag.text for tag in manifest if tag.tag.endswith("depend")}
    for name in imported_packages() - {PACKAGE} - sys.stdlib_module_names:
        if FROM_ROS.fullmatch(name):
            assert {name, f"{name}_py"} & depends  # Python's tf2_ros is in tf2_ros_py
        else:
            assert DISTRIBUTIONS.get(name, name.lower().replace("_", "-")) in declared


def test_ros_is_not_required_from_pip(setup_arguments):
    required = {distribution(requirement) for requirement in setup_arguments["install_requires"]}
    assert not {name for name in required if name.startswith("ros-") or name in ("rclpy", "cv-bridge")}


def test_every_direct_dependency_of_make_is_pinned(setup_arguments):
    extras = setup_arguments["extras_require"]
    needed = sum(
        (extras[name] for name in ("ros", "openvino", "igtl", "dicom", "planning", "record", "train", "fuzz", "test")),
        setup_arguments["install_requires"],
    )
    assert {distribution(requirement) for requirement in needed} == set(pins("constraints.txt"))
    assert "-c constraints.txt" in (ROOT / "Makefile").read_text()


def test_numpy_is_one_that_cv_bridge_imports_beside(setup_arguments):
    major_minor = {name: tuple(map(int, pins(name)["numpy"].split(".")[:2])) for name in CONSTRAINT_FILES}
    assert major_minor["constraints.txt"] < (2, 3)
    assert major_minor["constraints-apt.txt"] < (2, 0)
    assert "numpy>=1.26,<2.3" in setup_arguments["install_requires"]


def test_ci_runs_what_the_readme_says():
    assert "exec make test" in (ROOT / ".ci/run").read_text()
    assert (ROOT / ".ci/run").stat().st_mode & 0o100
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"demo", "test", "lint", "clean"} <= set(targets)
