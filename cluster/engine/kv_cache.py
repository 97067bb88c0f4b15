"""Keys and values of every block, per layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cluster.blocks.pool import BLOCK_TOKENS
from cluster.engine import huge_pages


@dataclass(frozen=True, slots=True)
class KvShape:
    """What a token's keys and values take: `num_layers * 2 * num_kv_heads * head_dim` numbers of
    `dtype`."""

    num_layers: int
    num_kv_heads: int
    head_dim: int
    dtype: torch.dtype = torch.float32

    @property
    def block_bytes(self) -> int:
        """Bytes of one block over all layers."""
        per_token = self.num_layers * 2 * self.num_kv_heads * self.head_dim
        return per_token * BLOCK_TOKENS * self.dtype.itemsize


class KvCache:
    """For each layer `k` [blocks, kv_heads, head_dim, 16] and `v` [blocks, kv_heads, 16, head_dim].

    Keys are turned inside a block so that one vector holds an element of all its 16 tokens.
    """

    def __init__(self, shape: KvShape, num_blocks: int, device: torch.device | str = "cpu") -> None:
        self.shape = shape
        heads, head_dim = shape.num_kv_heads, shape.head_dim
        k_size = (num_blocks, heads, head_dim, BLOCK_TOKENS)
        v_size = (num_blocks, heads, BLOCK_TOKENS, head_dim)
        layers = range(shape.num_layers)
        self.k = [_zeros(k_size, shape.dtype, device) for _ in layers]
        self.v = [_zeros(v_size, shape.dtype, device) for _ in layers]

    def poison(self, blocks: Tensor) -> None:
        """Fills blocks with NaN, so that reading one that was given back shows."""
        for layer in (*self.k, *self.v):
            layer[blocks] = torch.nan


def _zeros(size: tuple[int, ...], dtype: torch.dtype, device: torch.device | str) -> Tensor:
    if torch.device(device).type == "cpu":
        return huge_pages.zeros(size, dtype)
    return torch.zeros(size, dtype=dtype, device=device)
