"""Files that hold a patient's data, or that we will trust later: only their owner may read or change them.

A new file is made under a name nobody can foresee, in its own folder, and renamed into place when it is whole. Whoever
else may write to that folder can thus neither put a link in our way nor read what is half written.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PRIVATE_FILE, PRIVATE_FOLDER, SHARED_FILE = 0o600, 0o700, 0o644
ROOT = 0
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


class UntrustedError(OSError):
    """A file or folder that somebody else owns or may change; the message names it, and what was expected."""


@contextmanager
def replacing(path: str | Path, mode: int = PRIVATE_FILE) -> Iterator[Path]:
    """A new empty file beside ``path``, to be written; it becomes ``path`` at the end, or is removed if that fails.

    Its name ends as ``path``'s does and begins with ``.`` and a random part. mode: narrowed by the umask.
    """
    path = Path(path)
    temporary = path.with_name(f".{secrets.token_hex(8)}.{path.name}")
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    os.close(os.open(temporary, flags, mode))
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def private_folder(path: str | Path) -> Path:
    """Made if need be, with its parents; for its owner only. An existing one of ours that is wider is narrowed.

    UntrustedError if it is not ours, is a link, holds what others put there, or lies where anybody may exchange it.
    """
    path = Path(path)
    for folder in [*reversed(path.parents), path]:  # mkdir's ``parents`` would make those as wide as the umask lets it
        folder.mkdir(PRIVATE_FOLDER, exist_ok=True)
    expected = f"expected a folder of user {os.geteuid()} alone"
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise UntrustedError(f"{path}: a link, {expected}")
    if found.st_uid != os.geteuid():
        raise UntrustedError(f"{path}: owned by user {found.st_uid}, {expected}")
    for parent in path.absolute().parents:
        mode = parent.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise UntrustedError(f"{path}: anybody may write to {parent}, {expected}")
    if stat.S_IMODE(found.st_mode) & ~PRIVATE_FOLDER:
        path.chmod(PRIVATE_FOLDER)
    with os.scandir(path) as entries:  # after it was narrowed: nobody can add to it now
        for entry in entries:
            owner = entry.stat(follow_symlinks=False).st_uid
            if owner not in (os.geteuid(), ROOT):
                raise UntrustedError(f"{entry.path}: owned by user {owner}, {expected}")
    return path


def read_trusted(path: str | Path) -> bytes:
    """The content of a file that only we, or root, can have written; UntrustedError if not."""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:  # noqa: PTH123
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise UntrustedError(f"{path}: expected a plain file")
        if found.st_uid not in (os.geteuid(), ROOT) or found.st_mode & _OTHERS_MAY_WRITE:
            raise UntrustedError(
                f"{path}: owned by user {found.st_uid}, mode {stat.S_IMODE(found.st_mode):o}; "
                f"expected one that only user {os.geteuid()} can write"
            )
        return file.read()
