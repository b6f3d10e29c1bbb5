import re
from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = "threedme_ros"
HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / PACKAGE / "__init__.py").read_text()).group(1)


def share(folder, *patterns):
    """One ``data_files`` entry: what matches in the checkout's ``folder`` goes to the same folder under share."""
    paths = [path.relative_to(HERE).as_posix() for pattern in patterns for path in (HERE / folder).glob(pattern)]
    return f"share/{PACKAGE}/{folder}", sorted(paths)


setup(
    name=PACKAGE,
    version=VERSION,
    description="3DME for ROS 2: intraoperative volumes in, masks and anatomy in the patient frame out",
    long_description="A ROS 2 perception package for surgical robots. For demonstration only, never for clinical use.",
    author="The threedme_ros authors",
    maintainer="The threedme_ros authors",
    maintainer_email="maintainers@threedme.invalid",
    license="Apache-2.0",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    package_data={f"{PACKAGE}.pictures": ["*.js"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        share("launch", "*.launch.py"),
        share("config", "*.yaml", "*.rviz", "*.xml"),
        share("config/sros2", "*.xml"),
        share("config/tasks", "*.yaml"),
        share("models", "*.safetensors"),
    ],
    zip_safe=False,
    python_requires=">=3.11",
    # No rclpy, cv_bridge or message packages here: on a robot they come from apt, elsewhere from the extra "ros".
    # Lower bounds admit what apt has on Ubuntu 24.04, whose cv_bridge and messages are built against numpy 1.
    install_requires=[
        "fast-simplification>=0.1.7",
        "matplotlib>=3.6",
        "nibabel>=5.2",
        "numpy>=1.26,<2.3",
        "onnx>=1.16",
        "onnxruntime>=1.18",
        "onnxscript>=0.2",
        "pillow>=10.2",
        "pydicom>=3.0",
        "pynrrd>=1.0",
        "PyYAML>=6.0",
        "safetensors>=0.4.3",
        "scipy>=1.11",
        "SimpleITK>=2.3",
        "torch>=2.7",
        "tqdm>=4.66",
        "vtk>=9.3",
    ],
    extras_require={
        "ros": [
            "cv-bridge==1.13.0.post0",
            "opencv-python-headless<5",
            "ros-kilted-common-interfaces==5.5.1",
            "ros-kilted-rclpy==9.1.2",
            "ros-kilted-rmw-fastrtps-cpp==9.3.3",
        ],
        "tensorrt": ["tensorrt>=10"],
        "openvino": ["openvino>=2025.0"],
        # not an engine: the parser and builder that the exported graphs are checked with where there is no GPU
        "tensorrt-rtx": [
            "onnxruntime-ep-nv-tensorrt-rtx-cu12==0.5.0",
            "tensorrt-rtx-cu12-bindings==1.7.1.116",
        ],
        "igtl": ["pyigtl>=0.3"],
        "dicom": ["pynetdicom>=3.0"],
        # for `threedme demo-planning` at the desk; coal needs numpy 2, so not beside apt's cv_bridge
        "planning": ["coal>=3.0.1", "ompl>=2.0"],
        # `record` of the perception node and `threedme replay`
        "record": ["rosbags>=0.10"],
        "train": ["lightning>=2.4", "monai>=1.4", "tensorboard>=2.17", "torch-geometric>=2.6"],
        # coverage for `make fuzz`, which also runs without
        "fuzz": ["atheris>=3.0"],
        "test": [
            "hypothesis>=6.100",
            "pytest>=8",
            "pytest-timeout>=2.3",
            "ruff>=0.9",
            "scikit-learn>=1.4",
            "trimesh>=4.5",
        ],
    },
    entry_points={
        "console_scripts": [
            f"threedme = {PACKAGE}.cli:main",
            f"perception = {PACKAGE}.nodes.__main__:perception",
            f"volume_player = {PACKAGE}.nodes.__main__:volume_player",
            f"igtl_bridge = {PACKAGE}.nodes.__main__:igtl_bridge",
            f"dicom_receiver = {PACKAGE}.nodes.__main__:dicom_receiver",
            f"planning_scene = {PACKAGE}.nodes.__main__:planning_scene",
        ]
    },
)
