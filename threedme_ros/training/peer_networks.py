"""Networks that are usual, by MONAI: each defined once. The benchmark times them, `--model` trains them.

They take (B, 1, D, H, W) in [-1, 1], multiples of their stride, and give logits (B, C, D, H, W).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from .augment import PADDING


def dynunet(num_classes: int) -> nn.Module:
    """The plan nnU-Net makes for an isotropic patch: six levels, at most 320 channels."""
    from monai.networks.nets import DynUNet

    strides = [1, 2, 2, 2, 2, 2]
    filters = [32, 64, 128, 256, 320, 320]
    return DynUNet(3, 1, num_classes, [3] * 6, strides, strides[1:], filters=filters, norm_name="instance")


def swin_unetr(num_classes: int, feature_size: int) -> nn.Module:
    """SwinUNETR with ``feature_size`` channels at the first level (24 and 48 are usual)."""
    from monai.networks.nets import SwinUNETR
    from monai.networks.nets import swin_unetr as module

    module.rearrange = _permuted  # MONAI takes it from einops, an optional package, only to permute
    model = SwinUNETR(in_channels=1, out_channels=num_classes, feature_size=feature_size, use_checkpoint=False)
    model._check_input_size = _unchecked  # numpy, which the exporter cannot trace
    return model


def segresnet(num_classes: int) -> nn.Module:
    """SegResNet with 16 channels at the first level."""
    from monai.networks.nets import SegResNet

    return SegResNet(init_filters=16, in_channels=1, out_channels=num_classes)


def _permuted(x: Tensor, pattern: str) -> Tensor:
    """einops' rearrange for a pattern such as "n c d h w -> n d h w c"."""
    before, after = (side.split() for side in pattern.split("->"))
    return x.permute([before.index(name) for name in after])


def _unchecked(shape) -> None:
    pass


@dataclass(frozen=True)
class Peer:
    """build: number of classes -> network. stride: what its input must be a multiple of. channels: at full resolution.

    learning_rate, weight_decay: usual for it with AdamW; Muon's steps are as large. For a task that names none.
    """

    build: Callable[[int], nn.Module]
    stride: int
    channels: int
    learning_rate: float
    weight_decay: float


PEERS = {
    "dynunet": Peer(dynunet, 32, 32, learning_rate=1e-3, weight_decay=1e-2),
    "swinunetr": Peer(lambda num_classes: swin_unetr(num_classes, 24), 32, 24, learning_rate=5e-4, weight_decay=1e-2),
    "segresnet": Peer(segresnet, 8, 16, learning_rate=1e-3, weight_decay=1e-2),
}


@dataclass(frozen=True)
class PeerConfig:
    """Which peer, as `ModelConfig` says which 3DME: ``size`` is its name in `PEERS`.

    channels and token_size are what `Segmenter` asks of any network, to choose how large a window may be. Raises
    ValueError with the field and its value.
    """

    size: str
    num_classes: int
    in_channels: int = 1

    token_size = 16  # not a field: no peer has more tokens than such a network

    def __post_init__(self) -> None:
        if self.size not in PEERS:
            raise ValueError(f"peer {self.size!r}: expected one of {sorted(PEERS)}")
        if type(self.num_classes) is not int or not 2 <= self.num_classes <= 256:
            raise ValueError(f"num_classes {self.num_classes!r}: expected 2 to 256 (labels are uint8)")
        if self.in_channels != 1:
            raise ValueError(f"in_channels {self.in_channels!r}: expected 1")

    @property
    def channels(self) -> tuple[int]:
        return (PEERS[self.size].channels,)


class PeerNetwork(nn.Module):
    """A peer that takes windows of any shape: padded with air up to its stride, the logits cut back."""

    def __init__(self, config: PeerConfig) -> None:
        super().__init__()
        self.config = config
        self.network = PEERS[config.size].build(config.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, D, H, W) in [-1, 1] -> logits (B, num_classes, D, H, W)."""
        d, h, w = x.shape[2:]
        stride = PEERS[self.config.size].stride
        pad = [p for n in (w, h, d) for p in (0, -n % stride)]
        return self.network(F.pad(x, pad, value=PADDING))[:, :, :d, :h, :w]

    def predict(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Labels (B, D, H, W) int64 and confidence (B, D, H, W) float, the softmax of the chosen class."""
        logits = self(x).float()
        best, labels = logits.max(dim=1)
        return labels, 1 / (logits - best[:, None]).exp_().sum(dim=1)
