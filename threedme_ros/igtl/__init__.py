"""OpenIGTLink without ROS: the wire, the contents, the connections. `threedme_ros.nodes.igtl_bridge` is the shell."""
