"""flash-attn for long runs, where it is installed: faster than our kernel at prefill.

It wants keys and values that follow one another (its paged path wants pages of 256 tokens), so each
segment is gathered first; the states of a run's segments are merged from left to right. Facts of
its interface it is called by: without `causal` every query sees every key; with it the last query
sees all keys and each one before it one less; the second of its results is the lse, float32 [batch,
heads, queries]; 16-bit dtypes alone are taken.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Protocol, cast

import torch
from torch import Tensor

from cluster.attention.plan import AttentionPlan
from cluster.attention.state import State, merge

DTYPES = (torch.float16, torch.bfloat16)


class FlashAttention(Protocol):
    """`flash_attn.flash_attn_func` as it is used here."""

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        softmax_scale: float,
        causal: bool,
        return_attn_probs: bool,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """q [batch, queries, heads, head_dim], k and v [batch, keys, kv_heads, head_dim] in;
        o like q, the lse, and what only its own tests use, out."""
        ...


def find_flash_attention(load: Callable[[str], object] = import_module) -> FlashAttention | None:
    """flash-attn's function; None where it is not installed or does not load."""
    try:
        module = load("flash_attn")
    except (ImportError, OSError):
        return None
    return cast(FlashAttention | None, getattr(module, "flash_attn_func", None))


def attend_run(
    flash: FlashAttention,
    plan: AttentionPlan,
    number: int,
    tensors: tuple[Tensor, Tensor, Tensor],
    out: State,
) -> None:
    """Run `number` of a plan on the cpu, into its rows of `out`; `tensors` are q, keys and values
    as `cluster.attention.backend` has them, in a dtype of `DTYPES`."""
    q, k_cache, v_cache = tensors
    first_row, num_rows = plan.run_rows[number].tolist()
    rows = slice(first_row, first_row + num_rows)
    queries = q[rows].to(k_cache.dtype).unsqueeze(0)
    start, end = plan.run_offsets[number : number + 2].tolist()
    total: State | None = None
    for entry in range(start, end):
        k, v = _gathered(plan, int(plan.run_segments[entry]), k_cache, v_cache)
        o, lse, _ = flash(
            queries,
            k,
            v,
            softmax_scale=q.shape[2] ** -0.5,
            causal=entry == end - 1,
            return_attn_probs=True,
        )
        state = State(o[0].float(), lse[0].transpose(0, 1))
        total = state if total is None else merge(total, state)
    if total is not None:
        out.o[rows], out.lse[rows] = total


def _gathered(
    plan: AttentionPlan, segment: int, k_cache: Tensor, v_cache: Tensor
) -> tuple[Tensor, Tensor]:
    """Keys and values of a segment, [1, tokens, kv_heads, head_dim]."""
    start, end = plan.segment_offsets[segment : segment + 2].tolist()
    tokens = int(plan.segment_tokens[segment])
    blocks = plan.block_ids[start:end].long().to(k_cache.device)
    kv_heads, head_dim = k_cache.shape[1:3]
    keys = k_cache[blocks].permute(0, 3, 1, 2).reshape(1, -1, kv_heads, head_dim)
    values = v_cache[blocks].permute(0, 2, 1, 3).reshape(1, -1, kv_heads, head_dim)
    return keys[:, :tokens], values[:, :tokens]
