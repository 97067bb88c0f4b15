"""The contract of everything that computes attention over blocks.

Keys of a layer are [blocks, kv_heads, head_dim, 16], turned inside a block so that one vector holds
an element of 16 keys; values are [blocks, kv_heads, 16, head_dim]. The blocks axis may have any
stride, the others are contiguous. Slot `s` is place `s % 16` of block `s // 16`.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from cluster.attention.plan import AttentionPlan
from cluster.attention.split import Fold
from cluster.attention.state import State


class Attention(Protocol):
    """A step's attention, the same for every layer."""

    def attend(self, q: Tensor, k_cache: Tensor, v_cache: Tensor, /) -> State:
        """q is float32 [rows, heads, head_dim]; the blocks hold the rows' own keys already.

        Query head `h` reads kv head `h // (heads / kv_heads)`; scores are scaled by
        head_dim ** -0.5. `o` is [rows, heads, head_dim] and `lse` [rows, heads], both float32; rows
        in no run get the unit. Sums are float32 whatever the blocks hold.
        """
        ...


class AttentionBackend(Protocol):
    """One way of computing it."""

    @property
    def name(self) -> str: ...

    def prepare(self, plan: AttentionPlan, /) -> Attention:
        """Once a step, before its first layer."""
        ...

    def append(self, k_cache: Tensor, v_cache: Tensor, slots: Tensor, k: Tensor, v: Tensor) -> None:
        """`k` and `v` float32 [rows, kv_heads, head_dim] into `slots` int64 [rows], rounded to the
        blocks' dtype."""
        ...

    def fold(self, fold: Fold, parts: State, rows: State, /) -> None:
        """Writes the rows that `fold` names, from the states of their parts."""
        ...
