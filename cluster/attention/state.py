"""Partial attention states and the one way to merge them.

Softmax attention of a query over a set of keys is a pair `(o, lse)`: the output over those keys
alone, and the logarithm of the sum of their exponentiated scores. Over a cut of the keys

    lse = log(exp(lse_a) + exp(lse_b))        o = (o_a exp(lse_a) + o_b exp(lse_b)) / exp(lse)

(FlashAttention-2, arXiv 2307.08691, section 3.1). `merge` is associative over the reals and not in
floats, so the order of the fold is fixed: tiles of `TILE_TOKENS` keys counted from a segment's
start, left to right, then segments, left to right. Its unit `(0, -inf)` is exact also in floats.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

TILE_TOKENS = 256


class State(NamedTuple):
    """`o` is [..., head_dim], `lse` is [...]."""

    o: Tensor
    lse: Tensor


def unit_like(state: State) -> State:
    """The state over no keys at all."""
    return State(torch.zeros_like(state.o), torch.full_like(state.lse, -torch.inf))


def merge(a: State, b: State) -> State:
    """The state over the keys of both."""
    top = torch.maximum(a.lse, b.lse)
    # Both over no keys: any finite pivot keeps exp(-inf - pivot) at 0 instead of NaN.
    pivot = top.masked_fill(top == -torch.inf, 0.0)
    weight_a, weight_b = torch.exp(a.lse - pivot), torch.exp(b.lse - pivot)
    total = weight_a + weight_b
    o = a.o * weight_a.unsqueeze(-1) + b.o * weight_b.unsqueeze(-1)
    o = o / total.masked_fill(total == 0.0, 1.0).unsqueeze(-1)
    return State(o, pivot + torch.log(total))


def select(condition: Tensor, a: State, b: State) -> State:
    """`a` where `condition` [batch] holds, else `b`; states are [batch, ...]."""
    o_mask = condition.view(-1, *(1,) * (a.o.dim() - 1))
    return State(torch.where(o_mask, a.o, b.o), torch.where(o_mask.squeeze(-1), a.lse, b.lse))
