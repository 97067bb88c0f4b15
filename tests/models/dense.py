"""Causal attention over one sequence, written out plainly."""

from __future__ import annotations

import torch
from torch import Tensor


def attend_causally(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Row i looks at rows 0 to i; softmax over the whole row at once."""
    num_rows, heads, head_dim = q.shape
    k, v = (x.repeat_interleave(heads // x.shape[1], dim=1) for x in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q, k) / head_dim**0.5
    future = torch.ones(num_rows, num_rows, dtype=torch.bool).triu(1)
    weights = scores.masked_fill(future, float("-inf")).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights, v)


def attend_to_self(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Row by row, so that rows stay strangers: for tests about everything but attention."""
    return q + v.repeat_interleave(q.shape[1] // v.shape[1], dim=1)
