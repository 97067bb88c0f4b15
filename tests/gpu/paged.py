"""Caches of random keys and values in scattered blocks, and the truth about them in float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from cluster.attention.cuda.backend import TritonBackend
from cluster.attention.cuda.flash import FlashAttention
from cluster.attention.cuda.shape import HeadShape, Tiles, tiles_for
from cluster.attention.plan import Run, plan_attention
from cluster.attention.reference import ReferenceBackend
from cluster.attention.state import State
from cluster.blocks.pool import BLOCK_TOKENS, blocks_for
from cluster.blocks.segment import SegmentView
from cluster.ids import BlockId

# Absolute errors. Short runs lose what two 16-bit parts of a float32 query do not hold, long ones
# what one does not.
SHORT = {torch.float32: 1e-5, torch.float16: 1e-5, torch.bfloat16: 2e-4}
LONG = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}

# The interpreter pays for every operation, whatever its size: few large ones.
INTERPRETED = Tiles(
    queries=64, keys=256, warps=1, decode_stages=1, prefill_stages=1, states_ahead=1
)


def backend(
    shape: HeadShape,
    device: torch.device,
    flash: FlashAttention | None = None,
    **changed: int,
) -> TritonBackend:
    """On the cpu with tiles for the interpreter, but for what is `changed` of them."""
    tiles = replace(INTERPRETED, **changed) if device.type == "cpu" else tiles_for(shape)
    return TritonBackend(shape, device, tiles, flash)


class Pool:
    """Every slot that is not written holds NaN. What is written is kept in the order of segments
    too, as rounded to the cache's dtype."""

    def __init__(
        self, shape: HeadShape, num_blocks: int, device: torch.device | None = None, seed: int = 0
    ) -> None:
        self.shape = shape
        self.device = device or torch.device("cpu")
        self.random = torch.Generator().manual_seed(seed)
        sizes = (shape.head_dim, BLOCK_TOKENS), (BLOCK_TOKENS, shape.head_dim)
        self.k, self.v = (
            torch.full((num_blocks, shape.num_kv_heads, *size), torch.nan, dtype=shape.dtype)
            for size in sizes
        )
        self.free = torch.randperm(num_blocks, generator=self.random).tolist()
        self.written: dict[SegmentView, tuple[Tensor, Tensor]] = {}

    def add(self, num_tokens: int) -> SegmentView:
        """A segment of random keys and values."""
        count = blocks_for(num_tokens)
        taken, self.free = self.free[:count], self.free[count:]
        segment = SegmentView(tuple(map(BlockId, taken)), num_tokens)
        size = (num_tokens, self.shape.num_kv_heads, self.shape.head_dim)
        k, v = (torch.randn(size, generator=self.random) for _ in range(2))
        ReferenceBackend().append(self.k, self.v, slots_of(segment), k, v)
        self.written[segment] = (k.to(self.shape.dtype), v.to(self.shape.dtype))
        return segment

    def queries(self, count: int) -> Tensor:
        size = (count, self.shape.num_heads, self.shape.head_dim)
        return torch.randn(size, generator=self.random)

    def attend(self, backend: TritonBackend, q: Tensor, runs: Sequence[Run]) -> State:
        """By the backend, on the device; what it found, on the cpu."""
        plan = plan_attention(runs)
        state = backend.prepare(plan).attend(
            q.to(self.device), self.k.to(self.device), self.v.to(self.device)
        )
        return State(state.o.cpu(), state.lse.cpu())

    def truth(self, q: Tensor, runs: Sequence[Run]) -> State:
        """In float64, [rows, heads, ...]; rows in no run have the unit."""
        o = torch.zeros(q.shape, dtype=torch.float64)
        lse = torch.full(q.shape[:2], -torch.inf, dtype=torch.float64)
        for run in runs:
            rows = slice(run.first_row, run.first_row + run.num_rows)
            keys, values = (
                torch.cat(parts) for parts in zip(*map(self._of, run.segments), strict=True)
            )
            o[rows], lse[rows] = _dense(q[rows], keys, values)
        return State(o, lse)

    def _of(self, segment: SegmentView) -> tuple[Tensor, Tensor]:
        return self.written[segment]


def slots_of(segment: SegmentView) -> Tensor:
    first = torch.tensor(segment.blocks)[:, None] * BLOCK_TOKENS
    return (first + torch.arange(BLOCK_TOKENS)).flatten()[: segment.num_tokens]


def close(found: State, expected: State, atol: float) -> None:
    """Raises AssertionError where an output or lse is further off."""
    torch.testing.assert_close(found.o.double(), expected.o, atol=atol, rtol=1e-6)
    torch.testing.assert_close(found.lse.double(), expected.lse, atol=atol, rtol=1e-6)


def _dense(q: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """The last query sees all keys, each one before it one less."""
    group = q.shape[1] // keys.shape[1]
    k, v = (x.double().repeat_interleave(group, dim=1) for x in (keys, values))
    scores = torch.einsum("rhd,khd->rhk", q.double(), k) * q.shape[2] ** -0.5
    visible = len(keys) - len(q) + 1 + torch.arange(len(q))
    hidden = torch.arange(len(keys)) >= visible[:, None]
    scores = scores.masked_fill(hidden[:, None, :], -torch.inf)
    o = torch.einsum("rhk,khd->rhd", torch.softmax(scores, -1), v)
    return o, torch.logsumexp(scores, -1)
