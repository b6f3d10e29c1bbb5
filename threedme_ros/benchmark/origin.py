"""Where a record comes from: the command, the time, the revision and the machine, to stand beside its figures."""

from __future__ import annotations

import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from threedme_ros.benchmark.timing import hardware

ROOT = Path(__file__).resolve().parents[2]


def origin() -> dict[str, str]:
    """Of a record that is made now by this process."""
    command = shlex.join([_named(sys.argv[0]), *sys.argv[1:]])
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return {"command": command, "date": date, "revision": revision(), "machine": hardware()}


def revision() -> str:
    """Of the checkout, with "and changes" where tracked files differ from it; "unknown" outside of one."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    head = git("rev-parse", "--short=12", "HEAD")
    if not head:
        return "unknown"
    return f"{head} and changes" if git("status", "--porcelain", "--untracked-files=no") else head


def _named(program: str) -> str:
    """A script of the checkout by its place there; an installed one by its name."""
    path = Path(program).resolve()
    inside = path.is_relative_to(ROOT) and not path.is_relative_to(ROOT / ".venv")
    return path.relative_to(ROOT).as_posix() if inside else path.name
