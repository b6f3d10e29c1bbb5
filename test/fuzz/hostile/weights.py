"""The six kinds of weights file; what is loaded is also built, as its user would."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch

from threedme_ros.anatomy import Anatomy
from threedme_ros.model.adapters import load_adapter
from threedme_ros.model.checkpoint import Checkpoint, load_checkpoint
from threedme_ros.model.classifier import load_classifier
from threedme_ros.model.config import ModelConfig, Preprocessing
from threedme_ros.model.encoder import Encoder
from threedme_ros.model.foundation import Foundation, load_foundation
from threedme_ros.model.prompt_file import load_prompt_decoder
from threedme_ros.model.weights_file import CheckpointError
from threedme_ros.training.peer_checkpoint import load_peer

from . import seeds, structure
from .decoder import Decoder, from_file
from .documents import JSON_WORDS, check_anatomy

CONFIG_WORDS = (
    *JSON_WORDS,
    '"vit_depth": 999999999',
    '"vit_dim": 6000000',
    '"num_classes": 256',
    '"channels": [1,1,1000000]',
    '"vit_depth": 48, "vit_dim": 1536',
    '"vit": false',
    '"alpha": 1e300',
)
SAFETENSORS_WORDS = (
    *CONFIG_WORDS,
    '"data_offsets":[0,4]',
    '"F64"',
    '"BF16"',
    '"F8_E4M3"',
    '"I8"',
    '"BOOL"',
    '"F4"',
    '"C64"',
)
SAFETENSORS_WORDS += (
    '"shape":[0]',
    '"shape":[]',
    '"shape":[4294967296,4294967296]',
    '"shape":[18446744073709551615,0]',
    '"__metadata__":{"a":1}',
)


def build_checkpoint(path: Path):
    checkpoint = load_checkpoint(path)
    checkpoint.build()
    return checkpoint


def initialise_foundation(path: Path):
    foundation = load_foundation(path)
    for channels in (1, 4):
        foundation.initialise(Encoder(ModelConfig.of_size("small", 3, in_channels=channels, **seeds.TINY)))
    return foundation


def merge_adapter(path: Path):
    adapter = load_adapter(path)
    check_decoder(adapter.over(_any_foundation()))
    return adapter


def build_classifier(path: Path):
    classifier = load_classifier(path)
    classifier.build()
    return classifier


def load_prompt(path: Path):
    return load_prompt_decoder(path, _any_checkpoint())


@cache
def _any_checkpoint():
    """A checkpoint as `load_prompt_decoder` needs it: its hash and the channels of its network."""
    anatomy = Anatomy.from_json(seeds.anatomy_json()[1].decode())
    config = ModelConfig.of_size("small", 3, **seeds.TINY)
    return Checkpoint(config, anatomy, Preprocessing(), {}, "0123456789abcdef")


@cache
def _any_foundation():
    """The one that the seed of an adapter names."""
    config = ModelConfig.of_size("small", 3, **seeds.TINY)
    torch.manual_seed(0)
    return Foundation(config, Preprocessing(), Encoder(config).state_dict(), "0" * 16)


def check_file(file) -> None:
    assert len(file.hash) == 16 and isinstance(file.provenance, dict)
    assert all(tensor.isfinite().all() for tensor in file.weights.values())
    if hasattr(file, "anatomy"):
        check_anatomy(file.anatomy)


def check_decoder(decoder) -> None:
    assert all(tensor.isfinite().all() for tensor in decoder.state_dict().values())


def decoders() -> tuple[Decoder, ...]:
    calls = {"checkpoint": build_checkpoint, "foundation": initialise_foundation, "classifier": build_classifier}
    calls |= {"adapter": merge_adapter, "prompt": load_prompt, "peer": load_peer}
    return tuple(
        from_file(
            name,
            ".safetensors",
            call,
            refusals=(CheckpointError,),
            check=check_decoder if name == "prompt" else check_file,
            mutate=structure.safetensors(SAFETENSORS_WORDS),
            seeds=seeds.weights(name),
        )
        for name, call in calls.items()
    )
