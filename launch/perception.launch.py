"""The robot: the perception node, RViz with rviz:=true, the planning scene with moveit:=true. On Jazzy and Kilted.

`checkpoint`, `engine`, `device`, `record` and `autostart` win over the parameter file where they are given.
"""

import os

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import EnvironmentVariable, LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

CONFIG = [FindPackageShare("threedme_ros"), "config"]
OVERRIDES = {"checkpoint": str, "engine": str, "device": str, "record": str, "autostart": bool}
RVIZ_TOPICS = ("anatomy/markers", "anatomy/points", "anatomy/obstacles", "overlay", "prompt/markers")
# Fast DDS 3 (from Kilted on) renamed the variable and warns about the old name; 2.14 (Jazzy) knows only the old one.
PROFILES, OTHER_PROFILES = "FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"
if os.environ.get("ROS_DISTRO") == "jazzy":
    PROFILES, OTHER_PROFILES = OTHER_PROFILES, PROFILES


def perception(context):
    """The node. It comes back after a crash, five times at most; ctrl-C lets it finish the volume under way."""
    given = {name: kind for name, kind in OVERRIDES.items() if LaunchConfiguration(name).perform(context)}
    overrides = {name: ParameterValue(LaunchConfiguration(name), value_type=kind) for name, kind in given.items()}
    return [
        Node(
            package="threedme_ros",
            executable="perception",
            name="perception",
            namespace=LaunchConfiguration("namespace"),
            parameters=[LaunchConfiguration("params_file"), overrides],
            output="screen",
            respawn=True,
            respawn_delay=2.0,
            respawn_max_retries=5,
            sigterm_timeout="30",
        )
    ]


def generate_launch_description():
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "params_file",
                default_value=PathJoinSubstitution([*CONFIG, "perception.yaml"]),
                description="parameters of the perception node (YAML)",
            ),
            DeclareLaunchArgument(
                "checkpoint", default_value="", description="model weights (.safetensors); empty: as in params_file"
            ),
            DeclareLaunchArgument(
                "engine", default_value="", description="auto, or the one to try first; empty: as in params_file"
            ),
            DeclareLaunchArgument(
                "device", default_value="", description="auto, cpu, cuda ...; empty: as in params_file"
            ),
            DeclareLaunchArgument(
                "record", default_value="", description="folder for a bag of everything; empty: as in params_file"
            ),
            DeclareLaunchArgument(
                "autostart",
                default_value="",
                description="configure and activate at once, or wait for a lifecycle manager; empty: as in params_file",
            ),
            DeclareLaunchArgument("namespace", default_value="", description="of the node and its topics"),
            DeclareLaunchArgument("rviz", default_value="false", description="show the anatomy in RViz"),
            DeclareLaunchArgument("moveit", default_value="false", description="keep MoveIt's planning scene"),
            DeclareLaunchArgument(
                "planning_scene_file",
                default_value=PathJoinSubstitution([*CONFIG, "planning_scene.yaml"]),
                description="parameters of the planning scene node (YAML)",
            ),
            LogInfo(msg="threedme_ros is for demonstration only, not for clinical use."),
            SetEnvironmentVariable(
                PROFILES,
                EnvironmentVariable(
                    PROFILES,
                    default_value=EnvironmentVariable(
                        OTHER_PROFILES, default_value=PathJoinSubstitution([*CONFIG, "fastdds_shm.xml"])
                    ),
                ),
            ),
            OpaqueFunction(function=perception),
            Node(
                package="threedme_ros",
                executable="planning_scene",
                name="planning_scene",
                namespace=LaunchConfiguration("namespace"),
                parameters=[LaunchConfiguration("planning_scene_file")],
                output="screen",
                respawn=True,
                respawn_delay=2.0,
                condition=IfCondition(LaunchConfiguration("moveit")),
            ),
            Node(
                package="rviz2",
                executable="rviz2",
                namespace=LaunchConfiguration("namespace"),
                arguments=["-d", PathJoinSubstitution([*CONFIG, "perception.rviz"])],
                remappings=[(f"/{topic}", topic) for topic in RVIZ_TOPICS],
                condition=IfCondition(LaunchConfiguration("rviz")),
            ),
        ]
    )
