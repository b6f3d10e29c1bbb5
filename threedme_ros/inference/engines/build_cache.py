"""What engines build for a shape, kept on disk: verified when read, whole when written, built once at a time.

What is in the cache is loaded like a program: only what nobody else can have written counts.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from threedme_ros.private_files import private_folder, read_trusted, replacing

log = logging.getLogger(__name__)

MAX_BYTES = 4 << 30
"""Of all files in the cache: a graph and its compiled network take 40 MB a shape, and a year sees many shapes."""


def default_cache_dir() -> Path:
    """``$XDG_CACHE_HOME/threedme_ros/engines``, by default under ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "threedme_ros" / "engines"


def cached_build(folder: Path, kind: str, key: tuple, build: Callable[[], bytes], *, fresh: bool = False) -> bytes:
    """What ``build()`` gives for ``key`` (every value the result depends on), from the cache if it holds it.

    Of processes that start together one builds and the others wait and read. fresh: build again whatever is stored.
    ``build`` must not call this function with the same folder: it would wait for itself.
    """
    if not fresh and (content := read_cached(folder, kind, key)) is not None:
        return content
    with _building(folder):
        # another process may have built it while this one waited
        if not fresh and (content := read_cached(folder, kind, key)) is not None:
            return content
        content = build()
        _remove_leftovers(_place(folder, kind, key)[0])
        write_cached(folder, kind, key, content)
        _make_room(folder, _place(folder, kind, key)[0])
        return content


def read_cached(folder: Path, kind: str, key: tuple) -> bytes | None:
    """What is stored for ``key``; None if nothing is, or if it is truncated, changed or another key's.

    A file is the SHA-256 of the key and the content, then the content.
    """
    path, name = _place(folder, kind, key)
    try:
        stored = read_trusted(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("%s cannot be read (%s): building it again", path, error)
        return None
    digest, content = stored[:32], stored[32:]
    if digest == _digest(name, content):
        with suppress(OSError):
            os.utime(path)  # `_make_room` removes first what was not used for longest
        return content
    log.warning("%s is damaged: building it again", path)
    return None


def write_cached(folder: Path, kind: str, key: tuple, content: bytes) -> None:
    """Store ``content``, renamed into place when complete: killed at any moment it leaves no half file to be read.

    A folder that cannot be written costs the cache, not the result.
    """
    path, name = _place(folder, kind, key)
    try:
        _write_whole(path, _digest(name, content) + content)
    except OSError as error:
        log.warning("%s cannot be written (%s): the next start builds it again", path, error)


@contextmanager
def _building(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which ends with the process that holds it, however that ends.

    One lock for all keys: builds that time the hardware, as TensorRT's do, would spoil each other's measurements.
    """
    try:
        private_folder(folder)
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        yield  # nothing can be stored there, so there is nothing to guard
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another process is building in %s: waiting for it", folder)
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:  # a file system without locks: two may build, each writes a whole file
            log.debug("%s: no lock: %s", folder, error)
        yield
    finally:
        os.close(handle)


def _place(folder: Path, kind: str, key: tuple) -> tuple[Path, bytes]:
    name = hashlib.sha256(repr(key).encode()).digest()
    return folder / f"{kind}-{name.hex()[:24]}.cache", name


def _digest(name: bytes, content: bytes) -> bytes:
    return hashlib.sha256(name + content).digest()


def _make_room(folder: Path, new: Path) -> None:
    """Remove what was used longest ago, of ours and of runtimes that keep files below, until `MAX_BYTES` hold the rest.

    ``new`` stays. The caller holds the lock; a file that another process has open stays there for it.
    """
    files = []
    for path in folder.rglob("*"):
        with suppress(OSError):  # gone meanwhile
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                files.append((status.st_mtime, status.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= MAX_BYTES:
            return
        if path == new:
            continue
        with suppress(OSError):
            path.unlink()
            log.info("%s: the cache is full: removed what was used longest ago", path)
        total -= size


def _remove_leftovers(path: Path) -> None:
    """What a process killed while writing ``path`` left; the caller holds the lock, so nobody is writing now."""
    with suppress(OSError):
        for leftover in path.parent.glob(f".*.{path.name}"):
            leftover.unlink()


def _write_whole(path: Path, data: bytes) -> None:
    private_folder(path.parent)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
