"""What our own source must not contain: ways for data to become code, and downloads that nobody checks."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "threedme_ros"
CODE_FROM_DATA = re.compile(
    r"eval|exec|compile|__import__|os\.(system|popen|exec\w+|spawn\w+|posix_spawnp?)|subprocess\.get(status)?output"
    r"|_?c?pickle\.(?!(Unp|P)icklingError$)\w+|(marshal|shelve|dill|joblib|cloudpickle|runpy|code|codeop)\.\w+"
    r"|pandas\.read_pickle|yaml\.(full|unsafe)_load(_all)?|torch\.(hub|jit)\.load|torch\.serialization\.\w+"
    r"|tempfile\.mktemp"
)
"""Named at all, called or not: what is called may bear another name."""
MUST_SAY = {
    "torch.load": ("weights_only", True),
    "numpy.load": ("allow_pickle", False),
    "numpy.lib.format.read_array": ("allow_pickle", False),
    ".extract": ("filter", "data"),
    ".extractall": ("filter", "data"),
}
"""Safe only with this argument, in words: a default may change, and did. A name with a dot before it is any method."""
SAFE_LOADERS = {"yaml.SafeLoader", "yaml.CSafeLoader", "getattr(yaml, 'CSafeLoader', yaml.SafeLoader)"}
SHA256 = re.compile(r"[0-9a-f]{64}")


def breaches(source: str, where: str = "") -> list[str]:
    """``where``:line and what is wrong there, of each breach in the text of a module."""
    tree = ast.parse(source)
    names = _imported_names(tree)
    found = [f"{where}:{line}: {what}" for line, what in _breaches(tree, names)]
    if _downloads(tree) and not SHA256.search(source):
        found.append(f"{where}: downloads, and holds no SHA-256 to check it by")
    return found


def _breaches(tree: ast.AST, names: dict[str, str]) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            named = _dotted(node, names).removeprefix("builtins.")
            module = isinstance(node, ast.Name) or _root(node) in names  # else a variable that happens to be called so
            if module and CODE_FROM_DATA.fullmatch(named):
                yield node.lineno, f"{named}: data becomes code"
        if not isinstance(node, ast.Call):
            continue
        called = _dotted(node.func, names)
        given = {keyword.arg: getattr(keyword.value, "value", ...) for keyword in node.keywords}
        if given.get("shell", False) is not False:
            yield node.lineno, f"{called}: a shell may read its arguments"
        if called in ("yaml.load", "yaml.load_all") and not _loader(node, tree) <= SAFE_LOADERS:
            yield node.lineno, f"{called}: expected Loader= a safe one"
        key = called if called in MUST_SAY else f".{called.rpartition('.')[2]}"
        if key in MUST_SAY and given.get(MUST_SAY[key][0], ...) != MUST_SAY[key][1]:
            yield node.lineno, f"{called}: expected {MUST_SAY[key][0]}={MUST_SAY[key][1]!r}"


def _loader(call: ast.Call, tree: ast.AST) -> set[str]:
    """What is given as ``Loader``, in the words of the source; of a name, all that is ever assigned to it."""
    given = next((keyword.value for keyword in call.keywords if keyword.arg == "Loader"), None)
    if not isinstance(given, ast.Name):
        return {ast.unparse(given) if given else ""}
    assigned = [
        node for node in ast.walk(tree) if isinstance(node, ast.Assign) and given.id in map(ast.unparse, node.targets)
    ]
    return {ast.unparse(node.value) for node in assigned} or {given.id}


def _imported_names(tree: ast.AST) -> dict[str, str]:
    """Name in this module -> what it stands for, dotted."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname or alias.name.split(".")[0]: alias.name if alias.asname else alias.name.split(".")[0]
                      for alias in node.names}  # fmt: skip
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _dotted(node: ast.expr, names: dict[str, str]) -> str:
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value, names)}.{node.attr}"
    return ""


def _root(node: ast.expr) -> str:
    """The name that a chain of attributes begins with."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _downloads(tree: ast.AST) -> bool:
    """pip download, or a client of the web."""
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    clients = ("urllib.request", "requests", "http.client", "httpx")
    return {"pip", "download"} <= texts or any(name.startswith(clients) for name in _imported_names(tree).values())


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))
