"""Which engine runs a checkpoint: the candidates in their order, and the gate that each one passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from threedme_ros.inference.engines import Engine, EngineError, make_engine
from threedme_ros.inference.engines.chain import Candidate, EngineChain, preference
from threedme_ros.inference.parity import MIN_DICE, compare, make_probe
from threedme_ros.inference.tiling import DEFAULT_HALO, STRIDE, plan_windows

if TYPE_CHECKING:
    from threedme_ros.model.checkpoint import Checkpoint

LEAST_WINDOW_VOXELS = (2 * DEFAULT_HALO + STRIDE) ** 3
MOST_HANGS = 2
"""An engine that hung so often is not tried again."""


def open_engine(
    checkpoint: Checkpoint,
    engine: str | Engine,
    *,
    device: str,
    precision: str,
    threads: int,
    min_agreement: float,
    cache_dir: Path | None,
    probe_shape: tuple[int, int, int],
    window_voxels: int,
    hung: Mapping[tuple[str, str], int] | None = None,
    opened: Callable[[str, str], None] = lambda name, device: None,
) -> EngineChain:
    """The first engine that can be made and passes, and those that may replace it; arguments as for `Segmenter`.

    An ``engine`` that is no name is taken as it is. hung: how often an engine (name, device) never came back; such
    ones are tried last, and not at all after `MOST_HANGS` times. opened(name, device): hears of each that is made.
    probe_shape: (D, H, W), multiples of 16, of the probe volume; less where ``window_voxels`` is less.
    Raises ValueError for a bad argument, EngineError if no engine is left.
    """
    if not 0 <= min_agreement <= 1:
        raise ValueError(f"min_agreement {min_agreement}: expected 0 to 1")
    limits = {"window_voxels": window_voxels, "least_voxels": LEAST_WINDOW_VOXELS}
    if not isinstance(engine, str):
        return EngineChain([Candidate(lambda: engine)], gate=lambda *_: None, **limits)
    channels = checkpoint.config.in_channels
    if channels > 1 and engine not in ("auto", "torch"):
        raise EngineError(f"{engine}: {channels} input channels: only the torch engine takes more than one")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    places = [pair for pair in preference(engine, device) if channels == 1 or pair[0] == "torch"]
    hung = hung or {}
    candidates = {}
    for rank, (name, place) in enumerate(places):
        # the last resort runs in the precision it can
        wanted = "auto" if 0 < rank == len(places) - 1 else precision
        options = {"device": place, "precision": wanted, "threads": threads, "cache_dir": cache_dir}
        make = partial(_open, opened, name, checkpoint, options)
        candidates[name, place] = Candidate(make, required=rank == 0 and engine != "auto" and not hung)
    left = sorted((pair for pair in places if hung.get(pair, 0) < MOST_HANGS), key=lambda pair: hung.get(pair, 0))
    if not left:
        raise EngineError(f"no engine is left: {', '.join(name for name, _ in places)} hung {MOST_HANGS} times each")
    gate = _parity_gate(checkpoint, probe_shape, min_agreement, cache_dir)
    return EngineChain([candidates[pair] for pair in left], gate=gate, **limits)


def _open(opened: Callable[[str, str], None], name: str, checkpoint: Checkpoint, options: dict) -> Engine:
    opened(name, options["device"])
    try:
        return make_engine(name, checkpoint, **options)
    except EngineError:
        raise
    except (OSError, MemoryError, RuntimeError) as error:  # memory or descriptors ran out: no reason to lose the others
        raise EngineError(f"{name}: cannot be made: {type(error).__name__}: {error}") from error


def _parity_gate(
    checkpoint: Checkpoint, shape: tuple[int, int, int], least: float, cache_dir: Path | None
) -> Callable[[Engine, int], float]:
    def gate(engine: Engine, window_voxels: int) -> float:
        what = f"{engine.name} in {engine.precision} on {engine.device}"
        if what == "torch in fp32 on cpu":
            return 1.0  # it is the reference
        probe = make_probe(checkpoint, plan_windows(shape, window_voxels)[0].shape, cache_dir)
        parity = compare(engine, probe)
        if parity.agreement < least:
            raise EngineError(
                f"{what}: labels as torch in fp32 on {parity.agreement:.2%} of the probe volume, not {least:.2%}"
            )
        if least and parity.worst_dice < MIN_DICE:
            raise EngineError(
                f"{what}: structure {parity.worst_structure} of the probe volume with Dice {parity.worst_dice:.2f} to"
                f" torch in fp32, not {MIN_DICE}"
            )
        return parity.agreement

    return gate
