"""Self-supervised pretraining by progressive volumetric masking: `threedme pretrain`, or `pretrain` as a function.

A run is a pure function of (task, scans, number of windows a step): the data of a step depend on its number only, the
state holds everything else, and nothing draws from a global random generator after the weights. So a run that was
killed goes on from its last state and, on one CPU with the same number of threads, ends bit for bit where it would
have ended. On a GPU the gradient of `grid_sample` is summed in no fixed order, so there only to rounding.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import threedme_ros
from threedme_ros.documents import DocumentError, parse_mapping
from threedme_ros.model.config import ModelConfig
from threedme_ros.model.foundation import save_foundation
from threedme_ros.model.reconstruction import MaskedAutoencoder

from .crops import Crop, CropStream, RankBatches
from .distributed import launch_fabric
from .errors import TrainingError
from .fabric_trainer import FabricTrainer
from .masking import token_edges_mm
from .norm_statistics import with_own_statistics, with_unmasked_statistics
from .precision import keep_norms_in_fp32
from .pretrain_exam import examine, fixed_crops
from .pretrain_task import PretrainTask
from .preview import draw_preview
from .reconstruction import reconstruction_loss
from .run_folder import RunFolder, RunWriter
from .trainer import learning_rate
from .volume_cache import CachedVolume

if TYPE_CHECKING:
    from lightning.fabric import Fabric

NORM_WINDOWS = 16
FREE_TO_CHANGE = ("workers", "save_every", "batch_size", "accumulate")
"""What may differ when a run goes on: how it is carried out, not what it computes (the windows a step are checked)."""


@dataclass(frozen=True)
class PretrainResult:
    """``loss``: the mean over the last tenth of the steps. ``exam``: see `examine`. ``hash``: the foundation's."""

    foundation: Path
    hash: str
    steps: int
    loss: float
    exam: dict[str, dict]


class _WindowByWindow(nn.Module):
    """The network as Fabric calls it: each window of a batch alone, so that norms see that window's statistics only.

    What a window teaches then does not depend on which others share its batch or its process: two processes have the
    gradient of one with twice the batch, exactly. On the CPU, windows of two stride-8 places leave bf16: see
    `autocast_for`.
    """

    def __init__(self, model: MaskedAutoencoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, masks: Tensor) -> Tensor:
        thin = images.device.type == "cpu" and min(images.shape[2:]) <= ModelConfig.STRIDE
        if thin:
            images = images.float()  # which Fabric has cast
        with torch.autocast("cpu", enabled=False) if thin else nullcontext():
            pairs = zip(images.split(1), masks.split(1), strict=True)
            return torch.cat([self.model(image, mask) for image, mask in pairs])


class Pretrainer(FabricTrainer):
    """A run in memory: network, moving average, optimiser, and the number of the next step."""

    def __init__(self, task: PretrainTask, fabric: Fabric) -> None:
        super().__init__(fabric)
        self.task = task
        torch.manual_seed(task.seed)
        self.model = MaskedAutoencoder(task.model_config()).to(memory_format=torch.channels_last_3d)
        if fabric.device.type == "cpu":
            keep_norms_in_fp32(self.model)
        matrices = [p for p in self.model.parameters() if p.ndim > 1]
        vectors = [p for p in self.model.parameters() if p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": task.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        optimiser = torch.optim.AdamW(groups, lr=task.learning_rate, betas=(0.9, 0.95), foreach=True)
        self._set_up(_WindowByWindow(self.model), optimiser, task.ema_decay)

    def train_step(self, batches: Iterator[Crop]) -> dict:
        """One optimiser step on ``accumulate`` micro-batches; returns loss, gradient norm and learning rate.

        Raises TrainingError, on every rank alike, if one is not finite; the weights are then those of the step before.
        """
        task, fabric = self.task, self.fabric
        rate = learning_rate(self.step / task.steps, task.learning_rate, task.warm_up)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        total = torch.zeros((), device=fabric.device)
        for micro in range(task.accumulate):
            image, inside, mask = fabric.to_device(next(batches))
            with fabric.no_backward_sync(self._forward, enabled=micro < task.accumulate - 1):
                prediction = self._forward(image, mask)
                loss = reconstruction_loss(
                    prediction, image, inside, mask, self.model.config.token_size, task.loss, task.normalise_tokens
                )
                fabric.backward(loss / task.accumulate)
            total += loss.detach() / task.accumulate
        return self._finish_step(total, rate, task.clip_norm)


def pretrain(
    task: PretrainTask,
    volumes: Sequence[CachedVolume],
    output: str | Path,
    *,
    fabric: Fabric | None = None,
    resume: bool = False,
    preview: str | Path | None = None,
    skipped: int = 0,
) -> PretrainResult:
    """Run ``task`` on ``volumes`` in the folder ``output``; every rank calls it, rank 0 writes.

    fabric: None is one process on the best device of this machine. resume: go on from ``output``/state.pt, or begin
    where there is none. preview: a folder for the picture of what the network restores. skipped: cases left out, for
    the provenance. TrainingError: the folder holds another run, or a loss is not finite (the last state stays).
    OSError: the disk is full (the last state stays).
    """
    fabric = fabric or launch_fabric(task.precision)
    run, folder = Pretrainer(task, fabric), RunFolder(output)
    stream = _stream(task, volumes, fabric.world_size)
    identity = {
        "task": json.dumps({k: v for k, v in task.as_dict().items() if k not in FREE_TO_CHANGE}),
        "scans": json.dumps([[v.name, v.shape] for v in volumes]),
        "windows a step": stream.step_samples,
    }
    _begin(run, folder, identity, resume)
    fabric.barrier()  # no rank may write before all have read
    writer = nullcontext()
    if fabric.is_global_zero:
        # two states, the old and the new, of four fp32 sets: weights, moving average, two moments
        folder.require_space(2 * 4 * 4 * sum(p.numel() for p in run.model.parameters()))
        writer = RunWriter(folder, run.step, task.steps)
        if run.step == 0:
            folder.write_state(identity | run.state())

    def save(exam: dict | None = None) -> str:
        folder.write_state(identity | run.state())
        provenance = _provenance(run, volumes, skipped, fabric.world_size) | ({"exam": exam} if exam else {})
        encoder = with_unmasked_statistics(
            run.average.model.encoder, fixed_crops(task, volumes, 0.0, count=NORM_WINDOWS)
        )
        return save_foundation(folder.foundation, encoder, task.preprocessing, provenance)

    batches = iter(_loader(stream, task, run.step, fabric))
    result = None
    with writer as record:
        for step in range(run.step, task.steps):
            line = _step(run, stream, batches, folder)
            if record:
                record.step(step, line, stream.step_plan(step)[1])
                if run.step % task.save_every == 0 and run.step < task.steps:
                    save()
        if record:
            model = with_own_statistics(run.average.model)
            exam = examine(model, task, volumes)
            record.exam(run.step, exam)
            result = PretrainResult(folder.foundation, save(exam), run.step, record.final_loss(), exam)
            if preview is not None:
                draw_preview(Path(preview), model, task, volumes)
    return fabric.broadcast(result)


def _begin(run: Pretrainer, folder: RunFolder, identity: dict, resume: bool) -> None:
    """Load the folder's state, if any; TrainingError if it is there unasked for, or is of another run."""
    state = folder.read_state()
    if state is None:
        return
    if not resume:
        raise TrainingError(f"{folder.path} holds a run: go on with --resume, or name a new folder")
    other = [key for key, value in identity.items() if state.get(key) != value]
    if "task" in other:
        other[other.index("task")] = ", ".join(_changed(identity["task"], state.get("task")))
    if other:
        raise TrainingError(f"{folder.state}: a run with other {', '.join(other)}; name a new folder")
    try:
        run.load(state)
    except Exception as error:  # in a damaged state anything can lie anywhere
        raise TrainingError(f"{folder.state}: does not fit the network: {' '.join(str(error).split())}") from error


def _changed(mine: str, theirs: object) -> list[str]:
    """The fields of the task ``mine`` that ``theirs``, of a state, has otherwise or not at all; both JSON."""
    try:
        other = parse_mapping(theirs)
    except (DocumentError, TypeError):
        other = {}
    return [key for key, value in json.loads(mine).items() if value != other.get(key)]


def _step(run: Pretrainer, stream: CropStream, batches: Iterator[Crop], folder: RunFolder) -> dict:
    try:
        return run.train_step(batches)
    except TrainingError as error:
        kept = f"the last good state stays in {folder.state}"
        raise TrainingError(f"{error} (windows of {', '.join(stream.cases(run.step))}); {kept}") from error


def _loader(stream: CropStream, task: PretrainTask, first_step: int, fabric: Fabric) -> DataLoader:
    batches = RankBatches(
        first_step, task.steps, task.batch_size, task.accumulate, fabric.global_rank, fabric.world_size
    )
    return DataLoader(
        stream,
        batch_sampler=batches,
        num_workers=task.workers,
        prefetch_factor=4 if task.workers else None,
        worker_init_fn=_one_thread,
        generator=torch.Generator(),  # or it would draw from the global one
        pin_memory=fabric.device.type == "cuda",
    )


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)


def _provenance(run: Pretrainer, volumes: Sequence[CachedVolume], skipped: int, ranks: int) -> dict:
    scans = hashlib.sha256(json.dumps([[v.name, v.shape] for v in volumes]).encode()).hexdigest()[:16]
    return {
        "task": run.task.as_dict(),
        "steps": run.step,
        "scans": len(volumes),
        "scans_fingerprint": scans,  # names of files may be names of patients
        "skipped_cases": skipped,
        "processes": ranks,
        "version": threedme_ros.__version__,
        "torch": torch.__version__,
    }


def _stream(task: PretrainTask, volumes: Sequence[CachedVolume], ranks: int) -> CropStream:
    config = task.model_config()
    return CropStream(
        volumes,
        task.crops,
        task.masking,
        config.token_size,
        token_edges_mm(config.token_size, task.preprocessing.spacing_mm),
        seed=task.seed,
        steps=task.steps,
        step_samples=task.batch_size * task.accumulate * ranks,
    )
