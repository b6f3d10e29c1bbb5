"""Networks that are usual, by MONAI, in our engines: with their sliding window of 96^3 voxels, overlap 0.5."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import perf_counter

import numpy as np
import torch
from torch import nn

from threedme_ros.benchmark.timing import Timing, repeat
from threedme_ros.inference.engines import EngineError
from threedme_ros.inference.preprocess import prepare, restore_labels
from threedme_ros.training.peer_networks import dynunet, segresnet, swin_unetr
from threedme_ros.volume import Volume

PATCH = (96, 96, 96)
OVERLAP = 0.5
FULL_PASS_LIMIT_S = 120.0
WINDOW_RUNS = 5
BUILDERS = {
    "SwinUNETR-48": partial(swin_unetr, feature_size=48),
    "DynUNet": dynunet,
    "SegResNet-16": segresnet,
}
PEERS = tuple(BUILDERS)

Run = Callable[[np.ndarray], np.ndarray]
"""(1, 1, D, H, W) float32 -> logits (1, C, D, H, W) float32."""


@dataclass(frozen=True)
class PeerTimes:
    """volume_s: Volume to label Volume. extrapolated: windows x median window, without stitching, in its favour."""

    name: str
    parameters_m: float
    window: Timing
    windows: int
    volume_s: float
    extrapolated: bool


def make_peer(name: str, num_classes: int) -> nn.Module:
    """One of `PEERS`, with random weights, which cost as much time as any."""
    if name not in BUILDERS:
        raise ValueError(f"peer {name!r}: expected one of {PEERS}")
    torch.manual_seed(0)
    return BUILDERS[name](num_classes).eval()


def export_peer(model: nn.Module, patch: tuple[int, int, int]) -> bytes:
    """A self-contained ONNX file with input "volume" and output "logits"."""
    from threedme_ros.inference.export import quiet

    example = torch.zeros(1, 1, *patch)
    with quiet(), torch.inference_mode():
        program = torch.onnx.export(
            model, (example,), dynamo=True, opset_version=18, input_names=["volume"], output_names=["logits"],
            verbose=False,
        )  # fmt: skip
        return program.model_proto.SerializeToString()


def peer_runner(model: nn.Module, engine: str, precision: str, threads: int, patch: tuple[int, int, int]) -> Run:
    """``model`` in the runtime and with the options that our engine of that name uses."""
    if engine == "torch":
        half = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")

        def run(x: np.ndarray) -> np.ndarray:
            with torch.inference_mode(), half:
                return model(torch.from_numpy(x)).float().numpy()

        return run
    graph = export_peer(model, patch)
    if engine == "openvino":
        import openvino

        core = openvino.Core()
        options = {
            "INFERENCE_PRECISION_HINT": {"bf16": "bf16", "fp32": "f32"}[precision],
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
        }
        if threads:
            options["INFERENCE_NUM_THREADS"] = threads
        request = core.compile_model(core.read_model(graph), "CPU", options).create_infer_request()

        def run(x: np.ndarray) -> np.ndarray:
            request.infer({"volume": x}, share_inputs=True)
            return request.get_tensor("logits").data

        return run
    if engine == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        return lambda x: session.run(["logits"], {"volume": x})[0]
    raise EngineError(f"peers in engine {engine!r}: expected openvino, onnxruntime or torch")


def time_peer(
    name: str,
    volume: Volume,
    checkpoint,
    *,
    engine: str,
    precision: str,
    threads: int,
    patch: tuple[int, int, int] = PATCH,
    limit_s: float = FULL_PASS_LIMIT_S,
) -> PeerTimes:
    """On ``volume``, at the voxels our own network sees; ``limit_s``: above it the full pass is not run."""
    from monai.data.utils import dense_patch_slices
    from monai.inferers import sliding_window_inference

    model = make_peer(name, checkpoint.config.num_classes)
    parameters_m = sum(p.numel() for p in model.parameters()) / 1e6
    run = peer_runner(model, engine, precision, threads, patch)
    prepared = prepare(volume, checkpoint.preprocessing)
    padded = [max(n, p) for n, p in zip(prepared.x.shape, patch, strict=True)]
    steps = [max(1, int(p * (1 - OVERLAP))) if n > p else p for n, p in zip(padded, patch, strict=True)]
    windows = len(dense_patch_slices(padded, patch, steps))
    middle = tuple(slice((n - p) // 2, (n - p) // 2 + p) for n, p in zip(padded, patch, strict=True))
    window = np.full((1, 1, *patch), -1, np.float32)
    cut = prepared.x[middle]
    window[0, 0][tuple(slice(n) for n in cut.shape)] = cut
    run(window)
    timing = Timing.of(repeat(lambda: run(window), runs=WINDOW_RUNS, limit_s=limit_s / 4))
    extrapolated = windows * timing.median_s > limit_s
    if extrapolated:
        return PeerTimes(name, parameters_m, timing, windows, windows * timing.median_s, True)
    began = perf_counter()
    prepared = prepare(volume, checkpoint.preprocessing)
    with torch.inference_mode():
        x = torch.from_numpy(prepared.x)[None, None]
        predictor = lambda x: torch.from_numpy(np.array(run(x.contiguous().numpy())))  # noqa: E731
        logits = sliding_window_inference(x, patch, 1, predictor, overlap=OVERLAP)
        labels = logits[0].argmax(0).to(torch.uint8).numpy()
    restore_labels(labels, np.ones(labels.shape, np.float32), prepared)
    return PeerTimes(name, parameters_m, timing, windows, perf_counter() - began, False)
