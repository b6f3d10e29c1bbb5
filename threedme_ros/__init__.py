"""3DME for ROS 2: a 3-D medical foundation encoder from a volume topic to anatomy a planner can use."""

__version__ = "0.1.0"
