"""Starts a node by its name: ``python -m threedme_ros.nodes perception --ros-args ...``, and what `ros2 run` runs.

A node imports for seconds before rclpy minds signals. Ctrl-C must end it then, too: Python's KeyboardInterrupt is not
enough, since some library's import may swallow it.
"""

from __future__ import annotations

import signal
import sys
from functools import partial
from importlib import import_module

NODES = ("perception", "volume_player", "igtl_bridge", "dicom_receiver", "planning_scene")


def start(name: str) -> int:
    """The exit status of the node called ``name``, one of `NODES`."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    main = import_module(f"threedme_ros.nodes.{name}").main
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return main()


perception, volume_player, igtl_bridge, dicom_receiver, planning_scene = (partial(start, name) for name in NODES)

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in NODES:
        sys.exit(f"error: {' '.join(sys.argv[1:2]) or 'no node'}: expected one of {', '.join(NODES)}")
    sys.exit(start(sys.argv.pop(1)))
