"""Arrows go down only: which room of the package may import which."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = "threedme_ros"
ROOT = Path(__file__).resolve().parents[1] / PACKAGE
# From the cellar up. A room may import itself and whatever lies on a floor below its own.
FLOORS = (
    {"refusal"},
    {"__init__", "documents", "private_files", "share", "volume"},
    {"anatomy", "dicom_elements", "formats", "intraoperative"},
    {"dicom_frames", "phantom"},
    {"dicom_series"},
    {"volume_io", "dicom_store", "dicom_scp"},
    {"samples"},
    {"model"},
    {"inference", "geometry"},
    {"planning"},
    {"pictures", "igtl", "scene"},
    {"training"},
    {"nodes"},
    {"demo", "benchmark"},
    {"commands"},
    {"cli"},
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
# Legal by floor, yet a robot must not need what training needs.
FORBIDDEN = {("nodes", "training")}
ROS = re.compile(r"rclpy|cv_bridge|\w+_msgs|\w+_interfaces|std_srvs|ament_index_python|launch|launch_ros")
OPTIONAL = {
    "tensorrt",
    "openvino",
    "open3d",
    "ompl",
    "coal",
    "moveit_msgs",
    "tf2_ros",
    "pyigtl",
    "pynetdicom",
    "lightning",
    "monai",
    "tensorboard",
    "torch_geometric",
    "rosbags",
}
MODULES = sorted(ROOT.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(nodes: Iterable[ast.AST], module: str) -> set[str]:
    """Dotted names that the statements among ``nodes`` of ``module`` import; of ``from a import b`` both a and a.b."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = [*module.split(".")[: -node.level], node.module] if node.level else [node.module]
            origin = ".".join(filter(None, base))
            names |= {origin} | {f"{origin}.{alias.name}" for alias in node.names}
    return names


def unguarded(tree: ast.AST) -> Iterator[ast.AST]:
    """The statements that run when the module is imported and that no `except ModuleNotFoundError` covers."""
    for node in ast.iter_child_nodes(tree):
        guarded = isinstance(node, ast.Try) and "ModuleNotFoundError" in ast.dump(node)
        guarded |= isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"  # which is false at run time
        if not guarded and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
            yield from unguarded(node)


def outside_functions(tree: ast.AST) -> Iterator[ast.AST]:
    """The statements that stand outside of functions, those for type checkers included."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
            yield from outside_functions(node)


def module_name(path: Path) -> str:
    return ".".join([PACKAGE, *path.relative_to(ROOT).with_suffix("").parts])


def all_imports(path: Path) -> set[str]:
    return imported(ast.walk(ast.parse(path.read_text())), module_name(path))


def rooms_imported(path: Path) -> set[str]:
    names = [name.split(".") for name in all_imports(path) if name.split(".")[0] == PACKAGE]
    return {parts[1] for parts in names if len(parts) > 1 and parts[1] in FLOOR_OF}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
class TestModule:
    def test_has_a_floor(self, path):
        assert room(path) in FLOOR_OF

    def test_imports_only_what_lies_below(self, path):
        here = room(path)
        for other in rooms_imported(path) - {here}:
            assert FLOOR_OF[other] < FLOOR_OF[here], f"{here} imports {other}"
            assert (here, other) not in FORBIDDEN

    def test_ros_stays_in_nodes(self, path):
        if room(path) != "nodes":
            assert not [name for name in all_imports(path) if ROS.fullmatch(name.split(".")[0])]

    def test_optional_packages_are_imported_where_they_are_used(self, path):
        names = imported(unguarded(ast.parse(path.read_text())), module_name(path))
        assert not {name.split(".")[0] for name in names} & OPTIONAL


def test_no_modules_import_each_other_in_a_circle():
    modules = {module_name(path).removesuffix(".__init__"): path for path in MODULES}
    arrows = {
        name: imported(outside_functions(ast.parse(path.read_text())), module_name(path)) & modules.keys() - {name}
        for name, path in modules.items()
    }
    assert sum(map(len, arrows.values())) > len(modules)  # it sees them at all
    TopologicalSorter(arrows).prepare()  # CycleError names the circle


def test_the_ban_on_optional_packages_sees_classes_and_branches():
    tree = ast.parse(
        "if True:\n    import monai\nclass A:\n    import open3d\n    def f(self):\n        import lightning"
    )
    assert imported(unguarded(tree), "m") == {"monai", "open3d"}


def test_the_robot_and_the_desk_start_without_any_optional_package():
    block = f"import sys; sys.modules.update(dict.fromkeys({sorted(OPTIONAL)}))"
    start = "import threedme_ros.nodes.perception, threedme_ros.nodes.volume_player, threedme_ros.cli"
    subprocess.run([sys.executable, "-c", f"{block}; {start}"], check=True, cwd=ROOT.parent)
