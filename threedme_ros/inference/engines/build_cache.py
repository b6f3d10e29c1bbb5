"""What engines build for a shape, kept on disk: verified when read, whole when written."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)


def default_cache_dir() -> Path:
    """``$XDG_CACHE_HOME/threedme_ros/engines``, by default under ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "threedme_ros" / "engines"


def cached_build(folder: Path, kind: str, key: tuple, build: Callable[[], bytes]) -> bytes:
    """What ``build()`` gives for ``key`` (every value the result depends on), from the cache if it holds it.

    A file is the SHA-256 of the key and the content, then the content: one that is truncated, changed or of another
    key is built again. It is renamed into place when complete, so that two processes can start together and one can
    be killed while writing. A folder that cannot be written costs the cache, not the result.
    """
    name = hashlib.sha256(repr(key).encode()).digest()
    path = folder / f"{kind}-{name.hex()[:24]}.cache"
    try:
        stored = path.read_bytes()
        digest, content = stored[:32], stored[32:]
        if digest == _digest(name, content):
            return content
        log.warning("%s is damaged: building it again", path)
    except FileNotFoundError:
        pass
    except OSError as error:
        log.warning("%s cannot be read (%s): building it again", path, error)
    content = build()
    try:
        _write_whole(path, _digest(name, content) + content)
    except OSError as error:
        log.warning("%s cannot be written (%s): the next start builds it again", path, error)
    return content


def _digest(name: bytes, content: bytes) -> bytes:
    return hashlib.sha256(name + content).digest()


def _write_whole(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=path.name, dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
