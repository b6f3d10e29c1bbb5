"""How a node process starts and ends: Ctrl-C is a normal end, a wrong parameter is one line and exit code 1.

What it writes, logs and shared memory included, only its user may read: it may tell of a patient.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.signals import uninstall_signal_handlers
from rclpy.subscription import RCLError

from threedme_ros.nodes.parameters import ParameterError
from threedme_ros.nodes.steps import run_all
from threedme_ros.private_files import PRIVATE_FILE

PRIVATE_UMASK = 0o077
SHARED_MEMORY = re.compile(r"/dev/shm/fast\w+_[0-9a-f]{16}\b")


class Finished(Exception):  # noqa: N818 not an error
    """A node raises it from a callback when its work is done; the process ends with exit code 0."""


class _InterruptedError(Exception):
    """A signal came while the node was being made."""


def hide_shared_memory() -> None:
    """Whole volumes pass through Fast DDS's segments, which it makes readable to every user, whatever the umask."""
    for name in set(SHARED_MEMORY.findall(Path("/proc/self/maps").read_text())):
        with contextlib.suppress(OSError):  # somebody else's, or gone
            Path(name).chmod(PRIVATE_FILE)


def _created(create: Callable[[], Node], args: list[str] | None) -> Node:
    """ParameterError where ROS itself refuses: an argument it does not know, or an enclave without keys.

    `_InterruptedError` where a signal came while the node was being made.
    """
    begun = False
    try:
        rclpy.init(args=args)
        begun = True
        return create()
    except Exception as error:
        if begun and not rclpy.ok():
            raise _InterruptedError from error
        if isinstance(error, RCLError):
            raise ParameterError(" ".join(str(error).split())) from error
        raise


def run_node(create: Callable[[], Node], args: list[str] | None = None) -> int:
    """Spin the node of ``create()`` until shutdown or `Finished`; returns the exit code.

    Used if the node has them: ``start()`` before spinning, ``close()`` after, and ``threads_left_behind``, the number
    of threads that hang: with some the process ends at once, here, since the interpreter's own end may crash in them.
    So it does in what is left of a node that a signal interrupted while it was being made.
    """
    os.umask(PRIVATE_UMASK)  # before the log file is opened
    node, half_made = None, False
    try:
        node = _created(create, args)
        hide_shared_memory()  # nothing was published yet
        if hasattr(node, "start"):
            node.start()
        if rclpy.ok():  # no signal came meanwhile: an executor made after that complains
            rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException, Finished):
        pass
    except RCLError:
        if rclpy.ok():
            raise
        # else a signal came inside a callback, which could publish no more
    except _InterruptedError:
        half_made = True
    except (ParameterException, ParameterError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        # Under `ros2 launch` ctrl-C comes twice (terminal, launch), and SIGTERM after it: they must not cut the release
        # short.
        uninstall_signal_handlers()
        for ending in (signal.SIGINT, signal.SIGTERM):
            signal.signal(ending, signal.SIG_IGN)
        made = [] if node is None else [getattr(node, "close", lambda: None), node.destroy_node]
        run_all(*made, rclpy.try_shutdown)
    stuck = getattr(node, "threads_left_behind", 0)
    if stuck:
        print(f"ending with {stuck} threads that hang", file=sys.stderr)
    if stuck or half_made:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    return 0
