"""A process that subscribes to every result and prints, for each message, its topic and stamp."""

import rclpy
from perceiving import TYPES

from threedme_ros.nodes.qos import RESULTS


def main() -> None:
    rclpy.init()
    node = rclpy.create_node("reader")

    def show(topic):
        def got(message):
            header = message.markers[0].header if topic == "anatomy/markers" else getattr(message, "header", None)
            print(topic, header.stamp.sec if header else "-", flush=True)

        return got

    for topic, kind in TYPES.items():
        node.create_subscription(kind, topic, show(topic), RESULTS)
    print("ready", flush=True)
    rclpy.spin(node)


if __name__ == "__main__":
    main()
