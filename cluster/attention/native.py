"""Attention on the cpu by our own kernels (`thoth_kernels`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cluster.attention.plan import AttentionPlan
from cluster.attention.split import Fold
from cluster.attention.state import State
from cluster.kernels import kernels

if TYPE_CHECKING:
    import thoth_kernels


@dataclass(frozen=True, slots=True)
class NativeBackend:
    """`AttentionBackend` on `threads`, which one step at a time uses."""

    threads: thoth_kernels.Threads
    name: str = "native"

    def prepare(self, plan: AttentionPlan, /) -> NativeAttention:
        laid_out = kernels().AttentionPlan(
            plan.run_rows,
            plan.run_offsets,
            plan.run_segments,
            plan.segment_tokens,
            plan.segment_offsets,
            plan.block_ids,
        )
        return NativeAttention(laid_out, self.threads)

    def append(self, k_cache: Tensor, v_cache: Tensor, slots: Tensor, k: Tensor, v: Tensor) -> None:
        kernels().append(k_cache, v_cache, slots, k, v, self.threads)

    def fold(self, fold: Fold, parts: State, rows: State, /) -> None:
        kernels().fold_parts(
            fold.rows,
            fold.offsets,
            fold.parts,
            parts.o,
            parts.lse,
            rows.o,
            rows.lse,
            self.threads,
        )


@dataclass(frozen=True, slots=True)
class NativeAttention:
    """A step's plan, checked and laid out."""

    plan: thoth_kernels.AttentionPlan
    threads: thoth_kernels.Threads

    def attend(self, q: Tensor, k_cache: Tensor, v_cache: Tensor, /) -> State:
        state = State(torch.empty_like(q), torch.empty(q.shape[:2]))
        self.plan.attend(q, k_cache, v_cache, state.o, state.lse, self.threads)
        return state
