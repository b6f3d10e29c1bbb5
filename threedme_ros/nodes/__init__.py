"""The ROS 2 side: nodes and the messages they exchange. Nothing outside this package imports rclpy."""
