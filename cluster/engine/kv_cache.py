"""Keys and values of every block, per layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cluster.blocks.pool import BLOCK_TOKENS
from cluster.blocks.segment import SegmentView


@dataclass(frozen=True, slots=True)
class KvShape:
    """What a token's keys and values take: `num_layers * 2 * num_kv_heads * head_dim` numbers."""

    num_layers: int
    num_kv_heads: int
    head_dim: int


class KvCache:
    """`k` and `v`: one [slots, kv_heads, head_dim] tensor per layer; slot = block * 16 + offset."""

    def __init__(self, shape: KvShape, num_blocks: int) -> None:
        self.shape = shape
        size = (num_blocks * BLOCK_TOKENS, shape.num_kv_heads, shape.head_dim)
        self.k = [torch.zeros(size) for _ in range(shape.num_layers)]
        self.v = [torch.zeros(size) for _ in range(shape.num_layers)]

    def write(self, layer: int, slots: Tensor, k: Tensor, v: Tensor) -> None:
        """`k` and `v` [rows, kv_heads, head_dim] into `slots` [rows]."""
        self.k[layer][slots] = k
        self.v[layer][slots] = v

    def poison(self, blocks: Tensor) -> None:
        """Fills blocks with NaN, so that reading one that was given back shows."""
        slots = (blocks[:, None] * BLOCK_TOKENS + torch.arange(BLOCK_TOKENS)).flatten()
        for layer in (*self.k, *self.v):
            layer[slots] = torch.nan


def slots_of(segment: SegmentView) -> Tensor:
    """Slots of the segment's tokens, [tokens] int64."""
    blocks = torch.tensor(segment.blocks, dtype=torch.int64)
    slots = (blocks[:, None] * BLOCK_TOKENS + torch.arange(BLOCK_TOKENS)).flatten()
    return slots[: segment.num_tokens]
