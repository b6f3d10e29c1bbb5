"""One examination for every pretrained network: the same windows and masks whatever its seed or schedule."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from threedme_ros.model.reconstruction import MaskedAutoencoder

from .crops import Crop, CropStream
from .masking import token_edges_mm
from .pretrain_task import PretrainTask
from .reconstruction import detail_correlation, hidden_scan, to_intensity
from .volume_cache import CachedVolume

EXAM_SEED = 1_000_000_007
EXAM_WINDOWS = 6
HARDNESSES = (0.0, 0.5, 1.0)


def fixed_crops(
    task: PretrainTask, volumes: Sequence[CachedVolume], hardness: float, seed: int = EXAM_SEED, count: int = 1
) -> CropStream:
    """Unbent windows that depend on ``seed`` only, with the masks of one hardness."""
    config = task.model_config()
    return CropStream(
        volumes,
        replace(task.crops, warp=replace(task.crops.warp, share=0.0)),
        replace(task.masking, kind="fixed", fixed_at=hardness),
        config.token_size,
        token_edges_mm(config.token_size, task.preprocessing.spacing_mm),
        seed=seed,
        steps=count,
        step_samples=1,
    )


@torch.inference_mode()
def reconstruct(model: MaskedAutoencoder, crop: Crop, task: PretrainTask) -> Tensor:
    """Intensities (1, 1, D, H, W) of one sample, on the model's device, in fp32."""
    device = model.fill.device
    image = crop.image[None].to(device)
    prediction = model(image, crop.mask[None].to(device))
    return to_intensity(prediction, image, model.config.token_size, task.normalise_tokens)


def examine(
    model: MaskedAutoencoder, task: PretrainTask, volumes: Sequence[CachedVolume]
) -> dict[str, dict[str, float | None]]:
    """Hardness -> mean absolute error ("l1", in units of [-1, 1]; 0.01 is 4 HU of the default window) on hidden voxels,
    and "detail" (see `detail_correlation`), over `EXAM_WINDOWS` windows of the training scans. None where there is
    nothing to measure.

    With normalised targets "l1" has each token's true mean and deviation to lean on: compare "detail" then.
    """
    report = {}
    for hardness in HARDNESSES:
        scores = list(_scores(model, task, fixed_crops(task, volumes, hardness, count=EXAM_WINDOWS)))
        means = torch.tensor(scores, dtype=torch.float64).nanmean(0).tolist()
        report[f"{hardness:g}"] = {
            name: mean if math.isfinite(mean) else None for name, mean in zip(("l1", "detail"), means, strict=True)
        }
    return report


def _scores(model: MaskedAutoencoder, task: PretrainTask, crops: CropStream) -> Iterator[tuple[float, float]]:
    token_size = model.config.token_size
    for number in range(len(crops)):
        crop = crops[number]
        prediction = reconstruct(model, crop, task).cpu()
        image, inside, mask = (part[None] for part in crop)
        error = (prediction - image).abs()[hidden_scan(inside, mask, token_size)]
        yield float(error.mean()), detail_correlation(prediction, image, inside, mask, token_size)
