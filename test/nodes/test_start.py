import subprocess
import sys

import pytest

SWALLOWS = """
import os, signal, time
from types import SimpleNamespace
from threedme_ros.nodes import __main__ as starting

def import_module(name):
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
    except BaseException:
        pass
    return SimpleNamespace(main=lambda: print("reached"))

starting.import_module = import_module
starting.perception()
"""
HANDLER = """
import signal
from types import SimpleNamespace
from threedme_ros.nodes import __main__ as starting

main = lambda: print(name, signal.getsignal(signal.SIGINT) is signal.default_int_handler)
def import_module(module):
    global name
    name = module
    return SimpleNamespace(main=main)

starting.import_module = import_module
starting.volume_player()
"""


def test_an_interrupt_ends_a_node_even_where_an_import_would_swallow_it():
    done = subprocess.run([sys.executable, "-c", SWALLOWS], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == -2 and "reached" not in done.stdout


def test_once_imported_a_node_gets_pythons_own_interrupt():
    done = subprocess.run([sys.executable, "-c", HANDLER], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["threedme_ros.nodes.volume_player", "True"]


@pytest.mark.parametrize(("arguments", "said"), [([], "no node"), (["bridge"], "bridge")])
def test_an_unknown_node_is_told(arguments, said):
    command = [sys.executable, "-m", "threedme_ros.nodes", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1 and f"error: {said}: expected one of perception, volume_player" in done.stderr
