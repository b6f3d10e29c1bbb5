"""One JSON file a run, in one folder: a run that is there is not run again."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from threedme_ros.documents import DocumentError, read_json
from threedme_ros.training.errors import TrainingError


class Records:
    """``folder``/NAME.json: {"recipe": what was run, "result": what came out, "seconds": wall clock}."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def once(self, name: str, recipe: Mapping, work: Callable[[], Mapping]) -> dict:
        """The result of run ``name``: read, or else that of ``work()``, which is then written, whole or not at all.

        TrainingError if the file is of a run with another recipe (it names what differs) or cannot be read.
        """
        path = self.folder / f"{name}.json"
        recipe = json.loads(json.dumps(recipe))
        if path.is_file():
            return self._read(path, recipe)
        start = time.monotonic()
        result = json.loads(json.dumps(work(), allow_nan=False))
        record = {"recipe": recipe, "result": result, "seconds": round(time.monotonic() - start, 1)}
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(record, indent=1))
        temporary.replace(path)
        return result

    @staticmethod
    def _read(path: Path, recipe: dict) -> dict:
        try:
            record = read_json(path)
        except DocumentError as error:
            raise TrainingError(f"{path}: not a record of a run ({error}); remove it") from error
        parts = [record.get(key) for key in ("recipe", "result")] if isinstance(record, dict) else [None]
        if not all(isinstance(part, dict) for part in parts):
            raise TrainingError(f"{path}: not a record of a run (expected two mappings, recipe and result); remove it")
        theirs, result = parts
        other = sorted(key for key in recipe.keys() | theirs.keys() if recipe.get(key) != theirs.get(key))
        if other:
            raise TrainingError(f"{path}: a run with another {', '.join(other)}; name a new output folder")
        return result
