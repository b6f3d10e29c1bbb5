"""Weights and text metadata in one safetensors file with a hash over all of it: written whole or not at all, verified
when read, never unpickled."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from threedme_ros.private_files import SHARED_FILE, replacing
from threedme_ros.refusal import RefusalError


class CheckpointError(RefusalError):
    """The file is no checkpoint of this package; the message names the key and what was expected."""


def write_weights(
    path: str | Path, metadata: Mapping[str, str], weights: Mapping[str, Tensor], dtype: torch.dtype | None
) -> str:
    """Write ``weights`` and ``metadata`` (its "format" among it); returns 16 hex digits of hash.

    Matrices and kernels are stored as ``dtype`` (None: as they are); vectors (biases, statistics of norms) are small
    and stay as they are.

    Raises CheckpointError for a non-finite weight, after the conversion, and OSError when it cannot be written, which
    leaves a previous file as it was.
    """
    weights = {
        name: t.detach().to("cpu", dtype if dtype and t.ndim > 1 else t.dtype).contiguous()
        for name, t in weights.items()
    }
    if bad := not_finite(weights):
        raise CheckpointError(f"non-finite weights in {', '.join(bad)}: not saved")
    metadata = {**metadata, "hash": content_hash(metadata, weights)}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replacing(path, SHARED_FILE) as temporary:
            mode = temporary.stat().st_mode
            save_file(weights, temporary, metadata)
            temporary.chmod(mode)  # safetensors puts a file of its own in its place
    except SafetensorError as error:  # how safetensors reports a full disk
        raise OSError(f"{path}: cannot write ({error})") from error
    return metadata["hash"]


def read_weights(path: str | Path, format: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata (its "hash" verified) and weights. FileNotFoundError, or CheckpointError that says what does not fit."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no iterator)
    except (SafetensorError, OSError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]  # torch answers an absurd shape with a TypeError and a stack of C++
        raise CheckpointError(f"{path}: not a readable safetensors file ({reason})") from error
    if metadata.get("format") != format:
        raise CheckpointError(f"{path}: format {metadata.get('format')!r}, expected {format!r}")
    if metadata.get("hash") != content_hash(metadata, weights):
        raise CheckpointError(f"{path}: hash {metadata.get('hash')!r} does not match the content; the file is damaged")
    if bad := not_finite(weights):
        raise CheckpointError(f"{path}: weights that are not finite numbers in {', '.join(bad)}")
    return metadata, weights


def read_format(path: str | Path) -> str | None:
    """What kind of file ``path`` says it is, weights unread. FileNotFoundError, CheckpointError."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"checkpoint {path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("format")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error


def not_finite(weights: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that hold NaN or infinity, as fp32."""
    return sorted(name for name, t in weights.items() if not torch.isfinite(t.float()).all())


def misfits(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """Every tensor that is missing, unexpected, or of another shape, in words."""
    problems = [f"missing {name}" for name in expected.keys() - found.keys()]
    problems += [f"unexpected {name}" for name in found.keys() - expected.keys()]
    problems += [
        f"{name} has shape {tuple(found[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    return sorted(problems)


def load_strictly(module: nn.Module, weights: Mapping[str, Tensor], what: str) -> None:
    """Load ``weights`` as fp32; CheckpointError names every tensor that does not fit ``what``."""
    expected = module.state_dict()
    if problems := misfits(expected, weights):
        raise CheckpointError(f"weights do not fit {what}: {'; '.join(problems)}")
    if not any(tensor.is_meta for tensor in expected.values()):  # a plan has no memory to load into
        module.load_state_dict(weights)  # copies into the module's own types


def planned(build: Callable[[], nn.Module]) -> nn.Module:
    """``build()`` with names and shapes but without memory: a file of some bytes can describe a network of gigabytes.

    CheckpointError for sizes of which nothing can be built.
    """
    try:
        with torch.device("meta"):
            return build()
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"no such network: {error}") from error


def built(build: Callable[[], nn.Module], weights: Mapping[str, Tensor], what: str) -> nn.Module:
    """``build()`` with ``weights``, in eval mode; memory is taken only once all of them fit. CheckpointError."""
    load_strictly(planned(build), weights, what)
    module = build()
    load_strictly(module, weights, what)
    return module.eval()


def content_hash(metadata: Mapping[str, str], weights: Mapping[str, Tensor]) -> str:
    """Of everything but the hash itself, so that two files with one hash are alike."""
    digest = hashlib.sha256()
    for key in sorted(metadata.keys() - {"hash"}):
        digest.update(f"{key}\0{metadata[key]}\0".encode())
    for name in sorted(weights):
        tensor = weights[name]
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)  # flat: a scalar has no bytes to view
    return digest.hexdigest()[:16]
