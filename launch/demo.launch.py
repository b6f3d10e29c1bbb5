"""The whole chain on one machine: a volume player as the scanner, the perception node, and RViz."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare


def generate_launch_description():
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "source",
                default_value="sample:A",
                description="what is played: volume file, DICOM folder, sample:A to sample:D (fetched once) or phantom",
            ),
            DeclareLaunchArgument("rviz", default_value="true", description="show the anatomy in RViz"),
            # Its other arguments (params_file, engine ...) reach it from the command line as they are.
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(
                    PathJoinSubstitution([FindPackageShare("threedme_ros"), "launch", "perception.launch.py"])
                ),
                launch_arguments={"rviz": LaunchConfiguration("rviz")}.items(),
            ),
            Node(
                package="threedme_ros",
                executable="volume_player",
                name="volume_player",
                namespace=LaunchConfiguration("namespace"),
                parameters=[{"source": ParameterValue(LaunchConfiguration("source"), value_type=str)}],
                output="screen",
            ),
        ]
    )
