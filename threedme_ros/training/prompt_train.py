"""Training of the prompt decoder on a frozen checkpoint: `threedme train-prompt`.

One step is one window, encoded once, in which a few random structures of the source segmentation (all its ids, not
only the model's) are clicked, segmented, corrected and segmented again; every round has a loss.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from threedme_ros.model.checkpoint import Checkpoint, load_checkpoint
from threedme_ros.model.embedding import Embedding, embed
from threedme_ros.model.prompt_decoder import Clicks, Projected, PromptConfig, PromptDecoder
from threedme_ros.model.prompt_file import save_prompt_decoder
from threedme_ros.model.threedme import ThreeDME
from threedme_ros.share import DEMO_CHECKPOINT, share_path

from .case import TrainingCase
from .data import WindowStream
from .errors import TrainingError
from .precision import autocast_for
from .prompt_clicks import correction, random_inside
from .train import MAX_STEPS
from .trainer import MovingAverage, learning_rate
from .window_config import WindowConfig

OUTPUT = Path("runs/prompt/prompt.safetensors")


@dataclass(frozen=True)
class PromptTask:
    """One run. structures: clicked in each window; rounds: the most clicks for each; minutes: of wall clock.

    min_voxels: smaller pieces of a structure are not clicked. cases: how often each is drawn.
    """

    minutes: float = 12.0
    seed: int = 0
    learning_rate: float = 3e-3
    warm_up: float = 0.05
    weight_decay: float = 1e-4
    ema_decay: float = 0.99
    structures: int = 4
    rounds: int = 3
    min_voxels: int = 60
    cases: tuple[tuple[str, float], ...] = (("A", 2.0), ("B", 1.0))
    windows: WindowConfig = field(
        default_factory=lambda: WindowConfig(((80, 96, 96), (48, 112, 112), (16, 144, 144)), (0.6, 0.25, 0.15))
    )


def prompt_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Binary cross entropy plus soft Dice; logits (1, 1, D, H, W), truth (D, H, W) bool."""
    target = truth.float()[None, None]
    p = torch.sigmoid(logits)
    dice = (2 * (p * target).sum() + 1) / (p.sum() + target.sum() + 1)
    return F.binary_cross_entropy_with_logits(logits, target) + 1 - dice


def rounds_loss(
    decoder: PromptDecoder,
    projected: Projected,
    truth: Tensor,
    task: PromptTask,
    spacing_mm: tuple[float, float, float],
    generator: torch.Generator,
) -> tuple[Tensor, list[float]]:
    """Click ``truth`` (D, H, W) bool, then correct up to ``task.rounds - 1`` times: mean loss, Dice by round."""
    mask = truth.numpy()
    voxels, foreground = [random_inside(mask, spacing_mm, generator)], [True]
    losses, dice = [], []
    for _ in range(int(torch.randint(1, task.rounds + 1, (), generator=generator))):
        clicks = Clicks(torch.tensor(voxels, dtype=torch.float32), torch.tensor(foreground), spacing_mm)
        with autocast_for(truth[None, None], "bf16"):
            logits = decoder(projected, clicks).float()
        losses.append(prompt_loss(logits, truth))
        predicted = logits.detach()[0, 0].numpy() > 0
        dice.append(2 * float((predicted & mask).sum()) / float(predicted.sum() + mask.sum()))
        following = correction(predicted, mask, spacing_mm)
        if following is None:
            break
        voxels.append(following[0])
        foreground.append(following[1])
    return torch.stack(losses).mean(), dice


def train_step(
    decoder: PromptDecoder,
    model: ThreeDME,
    image: Tensor,
    labels: Tensor,
    task: PromptTask,
    spacing_mm: tuple[float, float, float],
    generator: torch.Generator,
) -> list[list[float]]:
    """Gradients of one window (1, D, H, W) and its source ids (D, H, W); Dice by structure and round.

    Empty, and no gradient, if the window shows no structure large enough.
    """
    ids, counts = labels[labels > 0].unique(return_counts=True)
    ids = ids[counts >= task.min_voxels]
    chosen = ids[torch.randperm(len(ids), generator=generator)[: task.structures]]
    if not len(chosen):
        return []
    with torch.no_grad(), autocast_for(image[None], "bf16"):
        embedding = Embedding(*(t.float() for t in embed(model, image[None])))
    projected = decoder.project(embedding)
    results = [rounds_loss(decoder, projected, labels == i, task, spacing_mm, generator) for i in chosen]
    loss = torch.stack([loss for loss, _ in results]).mean()
    if not math.isfinite(loss.item()):
        raise TrainingError(f"loss {loss.item()}: expected a finite number")
    loss.backward()
    return [dice for _, dice in results]


def run(
    task: PromptTask,
    cases: Sequence[TrainingCase],
    checkpoint: Checkpoint,
    output: Path,
    *,
    max_steps: int | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Train and write ``output``. ``cases`` carry the source ids as labels. max_steps: instead of minutes, repeatable.

    The product is the moving average of the weights.
    """
    torch.manual_seed(task.seed)
    model = checkpoint.build().requires_grad_(False).to(memory_format=torch.channels_last_3d)
    decoder = PromptDecoder(PromptConfig.of_model(checkpoint.config)).to(memory_format=torch.channels_last_3d)
    average = MovingAverage(decoder, task.ema_decay)
    optimiser = torch.optim.AdamW(decoder.parameters(), lr=task.learning_rate, weight_decay=task.weight_decay)
    weights = dict(task.cases)
    stream = WindowStream(cases, [weights[c.name] for c in cases], task.windows, task.seed, MAX_STEPS)
    generator = torch.Generator().manual_seed(task.seed)
    spacing_mm = checkpoint.preprocessing.spacing_mm[::-1]  # x=R, y=A, z=S -> (D, H, W)
    history: list[list[float]] = []
    began, said, step = time.monotonic(), time.monotonic(), 0

    def save() -> None:
        first, last = _first_and_last(history[-400:])
        minutes = (time.monotonic() - began) / 60
        say(f"step {step}, {minutes:.1f} min: Dice {first:.3f} after one click, {last:.3f} after the last")
        provenance = {
            "task": json.loads(json.dumps(asdict(task))),
            "steps": step,
            "minutes": round((time.monotonic() - began) / 60, 2),
            "training_dice": {"first": first, "last": last},
            "labels": "TotalSegmentator's output, not a human's",
        }
        save_prompt_decoder(output, average.model, checkpoint.hash, provenance)

    while True:
        spent = step / max_steps if max_steps else (time.monotonic() - began) / (60 * task.minutes)
        if spent >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(spent, task.learning_rate, task.warm_up)
        optimiser.zero_grad(set_to_none=True)
        image, labels = stream[step]
        history += train_step(decoder, model, image, labels, task, spacing_mm, generator)
        nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimiser.step()
        average.update(decoder)
        step += 1
        if time.monotonic() - said > 60:
            save()
            said = time.monotonic()
    save()
    return output


def _first_and_last(history: Sequence[Sequence[float]]) -> tuple[float, float]:
    if not history:
        return math.nan, math.nan
    return float(np.mean([h[0] for h in history])), float(np.mean([h[-1] for h in history]))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint", type=Path, default=None, help="the frozen network (default: the one that ships)"
    )
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"default: {OUTPUT}")
    parser.add_argument("--minutes", type=float, default=PromptTask.minutes, help="wall-clock budget (default: 12)")
    parser.add_argument("--steps", type=int, default=None, help="budget in steps instead of minutes (repeatable)")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")


def main(arguments: argparse.Namespace) -> int:
    """Train, print where the file lies. ValueError or OSError for what cannot be trained."""
    from threedme_ros.samples import SampleError

    from .sample_cases import load_source_cases

    torch.set_flush_denormal(True)
    task = PromptTask(minutes=arguments.minutes, seed=arguments.seed)
    checkpoint = load_checkpoint(arguments.checkpoint or share_path(DEMO_CHECKPOINT))
    try:
        cases = load_source_cases([key for key, _ in task.cases], checkpoint.preprocessing)
    except SampleError as error:
        raise ValueError(str(error)) from error
    path = run(task, cases, checkpoint, arguments.output, max_steps=arguments.steps, say=tqdm.write)
    print(f"prompt decoder for checkpoint {checkpoint.hash}: {path}")
    return 0
