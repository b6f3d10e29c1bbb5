"""What a planning scene should hold, decided without ROS: time is a number that is passed in."""
