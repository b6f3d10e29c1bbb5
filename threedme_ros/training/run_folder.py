"""The folder of a run: its state, its log of every step, and its product. What is in it survives a kill at any time."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path

import torch
from tqdm import tqdm

from threedme_ros.documents import DocumentError, parse_mapping
from threedme_ros.model.config import is_number

from .errors import TrainingError
from .masking import Masking

STATE, LOG, FOUNDATION, EVENTS = "state.pt", "metrics.jsonl", "foundation.safetensors", "tensorboard"


def read_state_file(path: Path) -> dict:
    """A state as `torch.save` wrote it, on the CPU; plain values and tensors only. TrainingError for any other file."""
    try:
        _check_archive(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch answers a damaged pickle with an AssertionError, an IndexError, anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise TrainingError(f"{path}: not a training state ({reason})") from error
    if not isinstance(state, dict):
        raise TrainingError(f"{path}: not a training state (a {type(state).__name__}): expected a mapping")
    return state


def _check_archive(path: Path) -> None:
    """ValueError unless ``path`` is what `torch.save` writes now: an archive whose parts are stored as they are.

    The format before that is a bare pickle, which takes what memory it claims; a deflated part may expand to anything.
    """
    with path.open("rb") as file:
        if file.read(4) != b"PK\3\4":
            raise ValueError("no zip archive")
    with zipfile.ZipFile(path) as archive:
        for part in archive.infolist():
            if part.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{part.filename}: compressed, expected parts that are not")


class RunFolder:
    """``path``/state.pt (to go on), metrics.jsonl (a line a step), foundation.safetensors, tensorboard/."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.state, self.log, self.foundation = self.path / STATE, self.path / LOG, self.path / FOUNDATION

    def require_space(self, bytes_needed: int) -> None:
        """OSError, before the first step, if the disk could not hold a new state beside the old one."""
        self.path.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.path).free
        if free < bytes_needed:
            raise OSError(f"{self.path}: {free / 1e6:.0f} MB free, expected {bytes_needed / 1e6:.0f} MB for the run")

    def write_state(self, state: dict) -> None:
        """Replace the state as a whole. OSError if it cannot be written; the previous one is then untouched."""
        temporary = self.path / f".{STATE}.{os.getpid()}"
        try:
            torch.save(state, temporary)
            temporary.replace(self.state)
        except (OSError, RuntimeError) as error:  # torch's writer says RuntimeError when the disk is full
            reason = " ".join(str(error).split())[:200]
            kept = "; the previous state is as it was" if self.state.exists() else ""
            raise OSError(f"{self.state}: cannot write the state, is the disk full?{kept} ({reason})") from error
        finally:
            temporary.unlink(missing_ok=True)

    def read_state(self) -> dict | None:
        """The last state, or None where no run has begun. TrainingError if it cannot be read."""
        for left in self.path.glob(f".{STATE}.*"):  # of a process that was killed while it wrote
            left.unlink(missing_ok=True)
        return read_state_file(self.state) if self.state.is_file() else None

    def read_log(self) -> list[dict]:
        """Every whole line; the last is cut off if the process was killed while it wrote it.

        TrainingError names a line that is no step's.
        """
        whole = self.log.read_bytes().split(b"\n")[:-1] if self.log.is_file() else []
        return [self._logged(number, line) for number, line in enumerate(whole, 1)]

    def _logged(self, number: int, text: bytes) -> dict:
        try:
            line = parse_mapping(text)
        except DocumentError as error:
            raise TrainingError(f"{self.log}, line {number}: {error}") from error
        step, loss = line.get("step"), line.get("loss")
        if type(step) is not int or not is_number(loss):
            raise TrainingError(f"{self.log}, line {number}: step {step!r}, loss {loss!r}: expected two numbers")
        return line

    def rewind_log(self, step: int) -> list[dict]:
        """Drop what a killed run logged after its last state: ``step`` is the first to come. Returns what is left."""
        kept = [line for line in self.read_log() if line["step"] < step]
        temporary = self.path / f".{LOG}.{os.getpid()}"
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
        temporary.replace(self.log)
        return kept


class RunWriter:
    """What rank 0 tells of a run while it goes: a log line and TensorBoard scalars a step, a bar with the time left.

    A context manager. A run that goes on takes up the log and the events where its state is.
    """

    def __init__(self, folder: RunFolder, step: int, steps: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ModuleNotFoundError("tensorboard is needed to train: pip install 'threedme_ros[train]'") from error
        self.folder, self.steps = folder, steps
        self.losses = [line["loss"] for line in folder.rewind_log(step)]
        self._log = folder.log.open("a", buffering=1)  # a line at a time, so that a kill loses none
        self._events = SummaryWriter(str(folder.path / EVENTS), purge_step=step)
        self._bar = tqdm(total=steps, initial=step, unit="step", dynamic_ncols=True)

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(self, *_) -> None:
        for part in (self._bar, self._events, self._log):
            part.close()

    def step(self, step: int, line: dict, masking: Masking) -> None:
        """A pretraining step. ``line``: the figures of `Pretrainer.train_step`; ``masking``: what the step hid."""
        scalars = line | {"masking/ratio": masking.ratio}
        scalars |= {f"masking/block_mm_{axis}": mm for axis, mm in zip("SAR", masking.block_mm, strict=True)}
        hidden = {"ratio": masking.ratio, "block_tokens": masking.block_tokens, "block_mm": masking.block_mm}
        block = "x".join(str(n) for n in masking.block_tokens)
        self.record(step, scalars, line | hidden, f", hidden {masking.ratio:.0%}, block {block}")

    def record(self, step: int, scalars: dict[str, float], line: dict, note: str = "") -> None:
        """Any step: TensorBoard ``scalars``, a log ``line`` with its "loss", and a ``note`` behind the loss."""
        for name, value in scalars.items():
            self._events.add_scalar(name, value, step)
        self._log.write(json.dumps({"step": step} | line) + "\n")
        self.losses.append(line["loss"])
        self._bar.set_postfix_str(f"loss {self.losses[-1]:.4f}{note}", refresh=False)
        self._bar.update()

    def exam(self, step: int, exam: dict[str, dict]) -> None:
        for hardness, scores in exam.items():
            for name, value in scores.items():
                if value is not None:
                    self._events.add_scalar(f"exam/{name}_at_{hardness}", value, step)

    def final_loss(self) -> float:
        """The mean over the last tenth of the steps."""
        last = self.losses[-max(1, self.steps // 10) :]
        return sum(last) / len(last)
