"""`make audit`: the pinned dependencies and our own source, and plainly what could not be checked.

Exit status 1 if something is wrong. What could not be checked is no failure, but is never called good either: the last
lines name it. Advisories are asked of the index that pip uses, release by release; one that serves them for the newest
release only answers for the pins that are the newest. A package with an advisory that was never mended goes first: an
index that does not know of that one knows nothing, and its silence about ours would mean nothing.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from source_rules import breaches, modules

ROOT = Path(__file__).resolve().parents[2]
CANARY = "ecdsa"
"""Its timing attack (CVE-2024-23342) is in every release."""
PIN = re.compile(r"([A-Za-z0-9][\w.-]*)==(\d[\w.+-]*)")
TIMEOUT_S, MOST_BYTES = 20.0, 64_000_000


@dataclass
class Findings:
    """``wrong`` fails the audit; ``unchecked`` says what it cannot vouch for; ``good`` what it can."""

    good: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)

    def add(self, name: str, problems: list[str], good: str) -> None:
        self.wrong += [f"{name}: {problem}" for problem in problems]
        self.good += [] if problems else [f"{name}: {good}"]


def pins(text: str) -> tuple[dict[str, str], list[str]]:
    """Name -> version of a constraints file, and its lines that pin nothing."""
    lines = [line for line in (raw.split("#")[0].strip() for raw in text.splitlines()) if line]
    found = {line: PIN.fullmatch(line) for line in lines}
    return {m[1]: m[2] for m in found.values() if m}, [line for line, m in found.items() if not m]


def check_pins(findings: Findings, constraints: str) -> dict[str, str]:
    pinned, loose = pins(constraints)
    findings.add("pins", [f"{line!r}: expected NAME==VERSION" for line in loose], f"{len(pinned)}, each to one version")
    differ, missing = [], []
    for name, version in pinned.items():
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
            continue
        if installed.split("+")[0] != version:
            differ.append(f"{name} {installed}: expected {version}")
    findings.add("installed", differ, f"{len(pinned) - len(missing)} of them, at the version pinned")
    findings.unchecked += [f"{name}: pinned, not installed here" for name in missing]
    return pinned


def check_consistency(findings: Findings) -> None:
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    problems = [line for line in done.stdout.splitlines() if line.strip()] if done.returncode else []
    findings.add("pip check", problems, "what is installed fits together")


def check_source(findings: Findings) -> None:
    found = [line for path in modules() for line in breaches(path.read_text(), path.relative_to(ROOT).as_posix())]
    findings.add("source", found, f"{len(modules())} modules: no data becomes code, each download has its SHA-256")


def index_address() -> str:
    """Of the index that pip uses here, up to where its JSON begins."""
    asked = [sys.executable, "-m", "pip", "config", "get"]
    configured = os.environ.get("PIP_INDEX_URL", "")
    for key in ("install.index-url", "global.index-url"):
        configured = configured or subprocess.run([*asked, key], capture_output=True, text=True, check=False).stdout
    from pip._internal.models.index import PyPI

    return (configured.strip() or PyPI.simple_url).rstrip("/").removesuffix("/simple") + "/pypi"


def fetch(address: str) -> dict | None:
    """A JSON object; None where the index has none. OSError or ValueError if it cannot be asked."""
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_S) as answer:
            found = json.loads(answer.read(MOST_BYTES))
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise
    return found if isinstance(found, dict) else None


def advisories(name: str, version: str, address: str, ask: Callable[[str], dict | None] = fetch) -> list[str] | str:
    """What is known against a release (empty: the newest), as identifiers; or, as text, why that cannot be said."""
    found = (ask(f"{address}/{name}/{version}/json") if version else None) or ask(f"{address}/{name}/json")
    if not found or not isinstance(found.get("vulnerabilities"), list):
        return "the index tells nothing of it"
    told = found.get("info", {}).get("version")
    if version and told != version:
        return f"the index tells only of its newest release, {told}"
    return [known.get("id", "?") for known in found["vulnerabilities"] if not known.get("withdrawn")]


def check_advisories(
    findings: Findings, pinned: dict[str, str], address: str, ask: Callable[[str], dict | None] = fetch
) -> None:
    try:
        canary = advisories(CANARY, "", address, ask)
        if isinstance(canary, str) or not canary:
            findings.unchecked.append(f"advisories: the index does not know the one against {CANARY}")
            return
        clean = 0
        for name, version in pinned.items():
            known = advisories(name, version, address, ask)
            if isinstance(known, str):
                findings.unchecked.append(f"advisories against {name} {version}: {known}")
            elif known:
                findings.wrong.append(f"{name} {version}: {', '.join(known)}")
            else:
                clean += 1
        findings.good.append(f"advisories: {clean} of {len(pinned)} pinned releases have none known")
    except (OSError, ValueError) as error:
        findings.unchecked.append(f"advisories: the index cannot be asked ({type(error).__name__})")


def main() -> int:
    findings = Findings()
    pinned = check_pins(findings, (ROOT / "constraints.txt").read_text())
    check_consistency(findings)
    check_source(findings)
    check_advisories(findings, pinned, index_address())
    findings.unchecked.append(
        "advisories against what the pinned packages need in turn: only direct dependencies are asked"
    )
    findings.unchecked.append("the packages' content: pip takes what the index sends, no hashes are pinned")
    for mark, lines in (("good", findings.good), ("WRONG", findings.wrong), ("NOT CHECKED", findings.unchecked)):
        for line in lines:
            print(f"{mark:12}{line}")
    print(f"{len(findings.wrong)} wrong, {len(findings.unchecked)} not checked")
    return bool(findings.wrong)


if __name__ == "__main__":
    sys.exit(main())
