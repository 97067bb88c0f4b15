"""Attention against a float64 reference, and its bits against themselves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from cluster.attention.backend import AttentionBackend
from cluster.attention.native import NativeBackend
from cluster.attention.plan import Run, plan_attention
from cluster.attention.reference import ReferenceBackend
from cluster.attention.state import State, merge, unit_like
from cluster.blocks.pool import BLOCK_TOKENS, blocks_for
from cluster.blocks.segment import SegmentView
from cluster.ids import BlockId
from cluster.kernels import kernels, kernels_available

SHAPES = [(9, 3, 64), (4, 2, 16), (8, 8, 80), (6, 6, 96), (8, 1, 128), (4, 2, 256)]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
NAMES = ["torch", "native", "native baseline"] if kernels_available() else ["torch"]


@pytest.fixture(params=NAMES)
def backend(request: pytest.FixtureRequest) -> Iterator[AttentionBackend]:
    """Torch, and the kernels for this machine and for any."""
    if request.param == "torch":
        yield ReferenceBackend()
        return
    kernels().prefer_baseline(request.param == "native baseline")
    yield NativeBackend(kernels().Threads(2))
    kernels().prefer_baseline(False)


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

    def __init__(
        self,
        num_blocks: int,
        kv_heads: int,
        head_dim: int,
        backend: AttentionBackend,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.random = torch.Generator().manual_seed(0)
        self.backend = backend
        k_size = (num_blocks, kv_heads, head_dim, BLOCK_TOKENS)
        v_size = (num_blocks, kv_heads, BLOCK_TOKENS, head_dim)
        self.k = torch.full(k_size, torch.nan, dtype=dtype)
        self.v = torch.full(v_size, torch.nan, dtype=dtype)
        self.free = (torch.randperm(num_blocks - 1, generator=self.random) + 1).tolist()

    def add(self, num_tokens: int) -> SegmentView:
        count = blocks_for(num_tokens)
        taken, self.free = self.free[:count], self.free[count:]
        segment = SegmentView(tuple(map(BlockId, taken)), num_tokens)
        size = (num_tokens, self.k.shape[1], self.k.shape[2])
        k, v = (torch.randn(size, generator=self.random) for _ in range(2))
        self.backend.append(self.k, self.v, slots(segment), k, v)
        return segment

    def rows(self, segments: tuple[SegmentView, ...]) -> tuple[Tensor, Tensor]:
        """Keys and values in the order of the context, each [tokens, kv_heads, head_dim]."""
        where = torch.cat([slots(segment) for segment in segments])
        blocks, places = where // BLOCK_TOKENS, where % BLOCK_TOKENS
        return self.k[blocks, :, :, places], self.v[blocks, :, places]

    def queries(self, count: int, heads: int) -> Tensor:
        return torch.randn((count, heads, self.k.shape[2]), generator=self.random)

    def attend(self, q: Tensor, runs: list[Run]) -> State:
        return self.backend.prepare(plan_attention(runs)).attend(q, self.k, self.v)


def slots(segment: SegmentView) -> Tensor:
    first = torch.tensor(segment.blocks)[:, None] * BLOCK_TOKENS
    return (first + torch.arange(BLOCK_TOKENS)).flatten()[: segment.num_tokens]


def first_part(segment: SegmentView, num_tokens: int) -> SegmentView:
    return SegmentView(segment.blocks[: blocks_for(num_tokens)], num_tokens)


def assert_close(state: State, expected: State) -> None:
    torch.testing.assert_close(state.o.double(), expected.o, atol=3e-6, rtol=1e-5)
    torch.testing.assert_close(state.lse.double(), expected.lse, atol=3e-6, rtol=1e-5)


@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), SHAPES)
@pytest.mark.parametrize("lengths", [(1,), (15,), (16, 1), (17, 256), (300, 257, 40), (4095,)])
def test_attention_equals_a_dense_reference(
    heads: int, kv_heads: int, head_dim: int, lengths: tuple[int, ...], backend: AttentionBackend
) -> None:
    pool = Pool(280, kv_heads, head_dim, backend)
    segments = tuple(pool.add(n) for n in lengths)
    num_rows = min(lengths[-1], 33)
    q = pool.queries(num_rows, heads)
    state = pool.attend(q, [Run(0, num_rows, segments)])
    total = sum(lengths)
    visible = [total - num_rows + i + 1 for i in range(num_rows)]
    assert_close(state, dense(q, *pool.rows(segments), visible))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_skewed_batches_of_every_dtype_equal_a_dense_reference(
    dtype: torch.dtype, backend: AttentionBackend
) -> None:
    pool = Pool(400, 2, 64, backend, dtype)
    shared = pool.add(700)
    contexts: list[tuple[SegmentView, ...]] = [(shared, pool.add(n)) for n in (1, 40, 17)]
    contexts += [(pool.add(1),), (pool.add(3000),), (pool.add(255), shared)]
    q = pool.queries(3 * len(contexts), 6)
    runs = [
        Run(3 * i, min(3, context[-1].num_tokens), context) for i, context in enumerate(contexts)
    ]
    state = pool.attend(q, runs)
    for run in runs:
        rows = slice(run.first_row, run.first_row + run.num_rows)
        total = sum(segment.num_tokens for segment in run.segments)
        visible = [total - run.num_rows + i + 1 for i in range(run.num_rows)]
        expected = dense(q[rows], *pool.rows(run.segments), visible)
        assert_close(State(state.o[rows], state.lse[rows]), expected)


@pytest.mark.skipif(not kernels_available(), reason="the kernels were not built")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_context_of_131072_tokens_equals_a_dense_reference(dtype: torch.dtype) -> None:
    pool = Pool(8200, 1, 64, NativeBackend(kernels().Threads(2)), dtype)
    segment = pool.add(131_072)
    q = pool.queries(1, 3)
    state = pool.attend(q, [Run(0, 1, (segment,))])
    assert_close(state, dense(q, *pool.rows((segment,)), [131_072]))


def test_scores_of_minus_infinity_weigh_nothing(backend: AttentionBackend) -> None:
    pool = Pool(64, 1, 16, backend)
    hidden, seen = pool.add(300), pool.add(20)
    for segment, places in ((hidden, slots(hidden)), (seen, slots(seen)[:7])):
        assert segment.num_tokens
        pool.k[places // BLOCK_TOKENS, :, 0, places % BLOCK_TOKENS] = -torch.inf
    q = pool.queries(1, 1).abs()
    state = pool.attend(q, [Run(0, 1, (hidden, seen))])
    keys, values = pool.rows((seen,))
    assert_close(state, dense(q, keys[7:], values[7:], [13]))
    nothing = pool.attend(q, [Run(0, 1, (hidden,))])
    assert torch.equal(nothing.o, torch.zeros_like(nothing.o))
    assert torch.isneginf(nothing.lse).all()


def test_rows_in_no_run_get_the_unit(backend: AttentionBackend) -> None:
    pool = Pool(16, 2, 16, backend)
    segment = pool.add(20)
    state = pool.attend(pool.queries(3, 4), [Run(1, 1, (segment,))])
    assert torch.equal(state.o[[0, 2]], torch.zeros(2, 4, 16))
    assert torch.isneginf(state.lse[[0, 2]]).all()
    assert state.lse[1].isfinite().all()


@pytest.mark.skipif(not kernels_available(), reason="the kernels were not built")
def test_threads_and_sharers_change_no_bit() -> None:
    pool = Pool(400, 3, 64, NativeBackend(kernels().Threads(1)))
    shared = pool.add(2500)
    contexts = [(shared, pool.add(n)) for n in (1, 30, 300, 9)]
    q = pool.queries(len(contexts), 9)
    runs = [Run(i, 1, context) for i, context in enumerate(contexts)]
    together = pool.attend(q, runs)
    for threads in (2, 3, 5):
        pool.backend = NativeBackend(kernels().Threads(threads))
        again = pool.attend(q, runs)
        assert torch.equal(again.o, together.o)
        assert torch.equal(again.lse, together.lse)
    for i, run in enumerate(runs):
        alone = pool.attend(q[i : i + 1], [Run(0, 1, run.segments)])
        assert torch.equal(alone.o[0], together.o[i])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), SHAPES)
def test_a_row_has_the_same_bits_alone_in_a_chunk_and_beside_others(
    heads: int, kv_heads: int, head_dim: int, threads: int, backend: AttentionBackend
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    pool = Pool(512, kv_heads, head_dim, backend)
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


def test_where_segments_are_cut_changes_the_sum_by_rounding_only(
    backend: AttentionBackend,
) -> None:
    pool = Pool(256, 2, 32, backend)
    whole = pool.add(896)
    parts = (SegmentView(whole.blocks[:9], 144), SegmentView(whole.blocks[9:], 752))
    q = pool.queries(1, 4)
    one = pool.attend(q, [Run(0, 1, (whole,))])
    cut = pool.attend(q, [Run(0, 1, parts)])
    torch.testing.assert_close(one.o, cut.o, atol=1e-6, rtol=1e-5)
