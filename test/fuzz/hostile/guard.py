"""What no decoder may do with a stranger's bytes: open a file, run or import code, connect, hang, take memory at will.

The audit hook sees what the interpreter does; C++ behind it is not seen, which is one more reason to parse headers in
Python. A forbidden act is both recorded and stopped: a decoder that swallows the exception is found out all the same.
"""

from __future__ import annotations

import resource
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

FORBIDDEN = frozenset(
    {"open", "import", "exec", "pickle.find_class", "marshal.loads", "subprocess.Popen", "os.system", "os.exec"}
    | {"os.posix_spawn", "os.fork", "os.listdir", "os.scandir", "os.remove", "os.rename", "os.mkdir", "os.rmdir"}
    | {"os.chmod", "os.link", "os.symlink", "os.truncate", "ctypes.dlopen", "urllib.Request", "glob.glob"}
    | {"socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"}
)
"""Audit events of CPython. "compile" is not among them: numpy reads an .npy header with `ast.literal_eval`, which
compiles to a tree and runs nothing; running it would be "exec"."""
MIB = 1 << 20


class Forbidden(BaseException):
    """The decoder did what it must not; no `except Exception` on the way may hide it."""


class Hang(BaseException):
    """The decoder took more CPU time than an input of this size may cost."""


@dataclass
class Watch:
    """What happened while one input was decoded. ``allowed``: the paths that may be opened."""

    allowed: frozenset[str] = frozenset()
    acts: list[str] = field(default_factory=list)


_current: Watch | None = None
_hooked = False


def _hook(event: str, arguments: tuple) -> None:
    if _current is None or event not in FORBIDDEN:
        return
    if event in ("open", "glob.glob", "os.scandir") and str(arguments[0]) in _current.allowed:
        return
    what = f"{event} {arguments[0]!r}"[:200] if arguments else event
    _current.acts.append(what)
    raise Forbidden(what)


def _alarm(*_) -> None:
    raise Hang("time limit")


@contextmanager
def watched(seconds: float, allowed: frozenset[str] = frozenset()) -> Iterator[Watch]:
    """Nothing of `FORBIDDEN` happens inside but opening ``allowed``, and no more than ``seconds`` of CPU time pass.

    A warning is an error inside: to print one, Python opens a source file and writes what may be a patient's name.
    """
    global _current, _hooked
    if not _hooked:
        sys.addaudithook(_hook)  # for good: Python offers no way to take one off
        _hooked = True
    previous = signal.signal(signal.SIGVTALRM, _alarm)
    watch = Watch(allowed)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    _current = watch
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield watch
    finally:
        _current = None
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, previous)


def peak_bytes() -> int:
    """The most memory this process has had resident so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def limit_address_space(room: int) -> None:
    """From now on this process gets at most ``room`` bytes of address space more than it has: then MemoryError."""
    with open("/proc/self/statm") as file:  # noqa: PTH123
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + room, resource.RLIM_INFINITY))
