"""A prompt decoder as one small safetensors file, bound to the checkpoint whose features it reads."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch

from threedme_ros.documents import parse_mapping
from threedme_ros.model.checkpoint import Checkpoint
from threedme_ros.model.prompt_decoder import PromptConfig, PromptDecoder
from threedme_ros.model.weights_file import CheckpointError, built, read_weights, write_weights

FORMAT = "threedme-prompt-1"


def save_prompt_decoder(path: str | Path, decoder: PromptDecoder, checkpoint_hash: str, provenance: dict) -> str:
    """Write ``decoder``, trained on the checkpoint ``checkpoint_hash``; returns its own hash. See `write_weights`."""
    metadata = {
        "format": FORMAT,
        "config": json.dumps(asdict(decoder.config)),
        "checkpoint": checkpoint_hash,
        "provenance": json.dumps(provenance),
    }
    return write_weights(path, metadata, decoder.state_dict(), torch.float32)


def load_prompt_decoder(path: str | Path, checkpoint: Checkpoint) -> PromptDecoder:
    """In eval mode. FileNotFoundError, or CheckpointError that says what does not fit: the file, a tensor, or the
    checkpoint it was trained on."""
    metadata, weights = read_weights(path, FORMAT)
    if metadata.get("checkpoint") != checkpoint.hash:
        raise CheckpointError(
            f"{path}: trained on the features of checkpoint {metadata.get('checkpoint')}, this one is {checkpoint.hash}"
        )
    try:
        config = PromptConfig(**parse_mapping(metadata["config"]))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: metadata does not fit: {error}") from error
    if config.channels != checkpoint.config.channels:
        raise CheckpointError(f"{path}: for channels {config.channels}, the network has {checkpoint.config.channels}")
    decoder = built(lambda: PromptDecoder(config), weights, "a prompt decoder")
    decoder.hash = metadata["hash"]
    return decoder.to(memory_format=torch.channels_last_3d)
