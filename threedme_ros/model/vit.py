"""The global branch: a Vision Transformer on cubic tokens, with 3-D rotary positions for any window shape."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from threedme_ros.model.config import ModelConfig
from threedme_ros.model.layers import Downsample, flatten_nodes, unflatten_nodes


def rotary_angles(shape: tuple[int, int, int], head_dim: int, base: float = 100.0) -> Tensor:
    """Angles (N, head_dim / 2) of every token of a (D, H, W) grid, N = D*H*W.

    Each third of the pairs turns with one axis: angle = position * base^(-m/M), m = 0..M-1 (RoFormer, Su et al.
    2021, eq. 15, axis by axis). A base of 100 suits grids of tens of tokens.
    """
    pairs = head_dim // 6
    frequency = base ** (-torch.arange(pairs, dtype=torch.float32) / pairs)
    axes = torch.meshgrid(*[torch.arange(n, dtype=torch.float32) for n in shape], indexing="ij")
    return torch.cat([axis.reshape(-1, 1) * frequency for axis in axes], dim=1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (x[..., :half], x[..., half:]) of (B, heads, N, head_dim) by the angles, (N, head_dim / 2)."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


class SelfAttention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, eq. 1) with rotary queries and keys. (B, N, dim) -> same."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        b, n, dim = x.shape
        # (B, N, 3*dim) -> 3 x (B, heads, N, head_dim)
        q, k, v = (t.reshape(b, n, self.heads, -1).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=-1))
        y = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v)
        return self.out(y.transpose(1, 2).reshape(b, n, dim))


class TransformerBlock(nn.Module):
    """Pre-norm attention and MLP (Dosovitskiy et al. 2021, eq. 2 and 3)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = SelfAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x), cos, sin)
        return x + self.mlp(self.norm2(x))


class ViTBranch(nn.Module):
    """Stride-4 features (B, C4, D/4, H/4, W/4) -> token features (B, vit_dim, D/t, H/t, W/t), t = token_size.

    ``marks``, of the tokens' shape, is added to them before the first block.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_dim = config.vit_dim // config.vit_heads
        self.tokenize = Downsample(config.channels[1], config.vit_dim, config.token_size // 4)
        self.blocks = nn.ModuleList(TransformerBlock(config.vit_dim, config.vit_heads) for _ in range(config.vit_depth))
        self.norm = nn.LayerNorm(config.vit_dim)

    def forward(self, x4: Tensor, marks: Tensor | None = None) -> Tensor:
        grid = self.tokenize(x4)
        if marks is not None:
            grid = grid + marks
        shape = tuple(grid.shape[2:])
        tokens = flatten_nodes(grid)
        angles = rotary_angles(shape, self.head_dim).to(tokens.device)
        cos, sin = angles.cos().to(tokens.dtype), angles.sin().to(tokens.dtype)
        for block in self.blocks:
            tokens = block(tokens, cos, sin)
        return unflatten_nodes(self.norm(tokens), shape)
