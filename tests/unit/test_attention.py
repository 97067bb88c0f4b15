"""Attention against a float64 reference, and its bits against themselves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cluster.attention.plan import Run, plan_attention
from cluster.attention.reference import ReferenceBackend
from cluster.attention.state import State, merge, unit_like
from cluster.blocks.pool import BLOCK_TOKENS, blocks_for
from cluster.blocks.segment import SegmentView
from cluster.ids import BlockId

SHAPES = [(9, 3, 64), (4, 2, 16), (8, 8, 80), (8, 1, 128)]


def dense(q: Tensor, keys: Tensor, values: Tensor, visible: list[int]) -> State:
    """Row `i` over the first `visible[i]` keys, in float64."""
    group_size = q.shape[1] // keys.shape[1]
    k = keys.double().repeat_interleave(group_size, dim=1)
    v = values.double().repeat_interleave(group_size, dim=1)
    scores = torch.einsum("rhd,khd->rhk", q.double(), k) * q.shape[-1] ** -0.5
    hidden = torch.arange(len(keys)) >= torch.tensor(visible)[:, None]
    scores = scores.masked_fill(hidden[:, None, :], -torch.inf)
    return State(
        torch.einsum("rhk,khd->rhd", torch.softmax(scores, -1), v), torch.logsumexp(scores, -1)
    )


class Pool:
    """Keys and values scattered over blocks; every slot not written is NaN."""

    def __init__(self, num_blocks: int, kv_heads: int, head_dim: int, seed: int = 0) -> None:
        self.random = torch.Generator().manual_seed(seed)
        self.k = torch.full((num_blocks, kv_heads, head_dim, BLOCK_TOKENS), torch.nan)
        self.v = torch.full((num_blocks, kv_heads, BLOCK_TOKENS, head_dim), torch.nan)
        self.free = (torch.randperm(num_blocks - 1, generator=self.random) + 1).tolist()

    def add(self, num_tokens: int) -> SegmentView:
        count = blocks_for(num_tokens)
        taken, self.free = self.free[:count], self.free[count:]
        segment = SegmentView(tuple(map(BlockId, taken)), num_tokens)
        size = (num_tokens, self.k.shape[1], self.k.shape[2])
        k, v = (torch.randn(size, generator=self.random) for _ in range(2))
        ReferenceBackend().append(self.k, self.v, slots(segment), k, v)
        return segment

    def rows(self, segments: tuple[SegmentView, ...]) -> tuple[Tensor, Tensor]:
        """Keys and values in the order of the context, each [tokens, kv_heads, head_dim]."""
        where = torch.cat([slots(segment) for segment in segments])
        blocks, places = where // BLOCK_TOKENS, where % BLOCK_TOKENS
        return self.k[blocks, :, :, places], self.v[blocks, :, places]

    def queries(self, count: int, heads: int) -> Tensor:
        return torch.randn((count, heads, self.k.shape[2]), generator=self.random)

    def attend(self, q: Tensor, runs: list[Run]) -> State:
        return ReferenceBackend().prepare(plan_attention(runs)).attend(q, self.k, self.v)


def slots(segment: SegmentView) -> Tensor:
    first = torch.tensor(segment.blocks)[:, None] * BLOCK_TOKENS
    return (first + torch.arange(BLOCK_TOKENS)).flatten()[: segment.num_tokens]


def first_part(segment: SegmentView, num_tokens: int) -> SegmentView:
    return SegmentView(segment.blocks[: blocks_for(num_tokens)], num_tokens)


@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), SHAPES)
@pytest.mark.parametrize("lengths", [(1,), (15,), (16, 1), (17, 256), (300, 257, 40), (1030,)])
def test_attention_equals_a_dense_reference(
    heads: int, kv_heads: int, head_dim: int, lengths: tuple[int, ...]
) -> None:
    pool = Pool(256, kv_heads, head_dim)
    segments = tuple(pool.add(n) for n in lengths)
    num_rows = min(lengths[-1], 33)
    q = pool.queries(num_rows, heads)
    state = pool.attend(q, [Run(0, num_rows, segments)])
    total = sum(lengths)
    visible = [total - num_rows + i + 1 for i in range(num_rows)]
    expected = dense(q, *pool.rows(segments), visible)
    torch.testing.assert_close(state.o.double(), expected.o, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(state.lse.double(), expected.lse, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), SHAPES)
def test_a_row_has_the_same_bits_alone_in_a_chunk_and_beside_others(
    heads: int, kv_heads: int, head_dim: int, threads: int
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    pool = Pool(512, kv_heads, head_dim)
    first, own, other = pool.add(270), pool.add(600), pool.add(777)
    q = pool.queries(601, heads)
    whole = pool.attend(q, [Run(0, 600, (first, own))])
    for start, end in [(0, 1), (1, 2), (5, 40), (299, 300), (300, 600), (599, 600)]:
        rows = end - start
        runs = [
            Run(0, rows, (first, first_part(own, end))),
            Run(rows, 1, (other, first_part(own, 9))),
        ]
        part = pool.attend(torch.cat([q[start:end], q[600:]]), runs)
        assert torch.equal(part.o[:rows], whole.o[start:end])
        assert torch.equal(part.lse[:rows], whole.lse[start:end])
    torch.set_num_threads(before)


def test_the_unit_changes_no_bit_on_either_side() -> None:
    state = State(torch.randn(5, 7, 3, 16), torch.randn(5, 7, 3) * 30)
    for merged in (merge(state, unit_like(state)), merge(unit_like(state), state)):
        assert torch.equal(merged.o, state.o)
        assert torch.equal(merged.lse, state.lse)


def test_the_unit_merged_with_itself_is_the_unit() -> None:
    unit = unit_like(State(torch.randn(2, 4), torch.randn(2)))
    merged = merge(unit, unit)
    assert torch.equal(merged.o, unit.o)
    assert torch.equal(merged.lse, unit.lse)


def test_where_segments_are_cut_changes_the_sum_by_rounding_only() -> None:
    pool = Pool(256, 2, 32)
    whole = pool.add(896)
    parts = (SegmentView(whole.blocks[:9], 144), SegmentView(whole.blocks[9:], 752))
    q = pool.queries(1, 4)
    one = pool.attend(q, [Run(0, 1, (whole,))])
    cut = pool.attend(q, [Run(0, 1, parts)])
    torch.testing.assert_close(one.o, cut.o, atol=1e-6, rtol=1e-5)
