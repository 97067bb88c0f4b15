"""Random steps: segments on scattered blocks, shared and not, and the runs that attend them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from hypothesis import strategies as st
from torch import Tensor

from cluster.attention.backend import AttentionBackend
from cluster.attention.plan import Run, plan_attention
from cluster.attention.state import State
from cluster.blocks.pool import BLOCK_TOKENS, blocks_for
from cluster.blocks.segment import SegmentView
from cluster.ids import BlockId

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# heads, kv_heads, head_dim: also those that no vector divides.
SHAPES = ((9, 3, 64), (4, 2, 16), (5, 5, 80), (7, 1, 96), (8, 2, 128), (2, 1, 256), (6, 2, 10))


@dataclass(frozen=True, slots=True)
class Rows:
    """A run before it has rows of the step: `shared` are numbers of common segments, `own` tokens
    of its last, of which the last `num_rows` are computed."""

    shared: tuple[int, ...]
    own: int
    num_rows: int


@dataclass(frozen=True, slots=True)
class Step:
    """What is drawn: everything else follows from it."""

    shape: tuple[int, int, int]
    dtype: torch.dtype
    shared: tuple[int, ...]
    runs: tuple[Rows, ...]
    seed: int


@st.composite
def steps(draw: st.DrawFn) -> Step:
    shared = draw(st.lists(st.integers(1, 600), min_size=1, max_size=3))
    numbers = st.lists(st.sampled_from(range(len(shared))), unique=True, max_size=3)
    runs = []
    for _ in range(draw(st.integers(1, 6))):
        own = draw(st.one_of(st.integers(1, 40), st.integers(200, 600)))
        num_rows = draw(st.one_of(st.just(1), st.integers(1, min(own, 70))))
        runs.append(Rows(tuple(draw(numbers)), own, num_rows))
    shape = draw(st.sampled_from(SHAPES))
    dtype = draw(st.sampled_from(DTYPES))
    return Step(shape, dtype, tuple(shared), tuple(runs), draw(st.integers(0, 99)))


class Laid:
    """A step in memory. Slots that hold no token are NaN."""

    def __init__(self, step: Step, backend: AttentionBackend) -> None:
        heads, kv_heads, head_dim = step.shape
        random = torch.Generator().manual_seed(step.seed)
        lengths = [*step.shared, *(run.own for run in step.runs)]
        num_blocks = sum(map(blocks_for, lengths)) + 3
        order = iter(torch.randperm(num_blocks, generator=random).tolist())
        self.segments = [
            SegmentView(tuple(BlockId(next(order)) for _ in range(blocks_for(n))), n)
            for n in lengths
        ]
        # Blocks lie apart, as in an arena where each has a header.
        inner = kv_heads * head_dim * BLOCK_TOKENS
        arena = torch.full((2, num_blocks, inner + 32), torch.nan, dtype=step.dtype)
        self.k = arena[0, :, 32:].view(num_blocks, kv_heads, head_dim, BLOCK_TOKENS)
        self.v = arena[1, :, 32:].view(num_blocks, kv_heads, BLOCK_TOKENS, head_dim)
        for segment in self.segments:
            k, v = torch.randn((2, segment.num_tokens, kv_heads, head_dim), generator=random)
            backend.append(self.k, self.v, slots(segment), k, v)
        own = self.segments[len(step.shared) :]
        self.runs: list[Run] = []
        for rows, last in zip(step.runs, own, strict=True):
            first_row = sum(run.num_rows for run in self.runs)
            shared = (self.segments[number] for number in rows.shared)
            self.runs.append(Run(first_row, rows.num_rows, (*shared, last)))
        num_rows = sum(run.num_rows for run in self.runs)
        self.q = torch.randn((num_rows, heads, head_dim), generator=random)

    def attend(self, backend: AttentionBackend) -> State:
        return backend.prepare(plan_attention(self.runs)).attend(self.q, self.k, self.v)

    def alone(self, run: Run, begin: int, end: int, backend: AttentionBackend) -> State:
        """Rows [begin, end) of the run as a chunk of their own, in a step of their own."""
        *earlier, last = run.segments
        num_tokens = last.num_tokens - run.num_rows + end
        cut = SegmentView(last.blocks[: blocks_for(num_tokens)], num_tokens)
        part = Run(0, end - begin, (*earlier, cut))
        q = self.q[run.first_row + begin : run.first_row + end]
        return backend.prepare(plan_attention([part])).attend(q, self.k, self.v)

    def shuffled(self, backend: AttentionBackend) -> State:
        """The runs in another order, the result back in this one."""
        order = list(reversed(self.runs))
        rows = torch.cat([torch.arange(r.first_row, r.first_row + r.num_rows) for r in order])
        first_row, moved = 0, []
        for run in order:
            moved.append(replace(run, first_row=first_row))
            first_row += run.num_rows
        state = backend.prepare(plan_attention(moved)).attend(self.q[rows], self.k, self.v)
        back = rows.argsort()
        return State(state.o[back], state.lse[back])


def slots(segment: SegmentView) -> Tensor:
    places = torch.arange(segment.num_tokens)
    return torch.tensor(segment.blocks)[places // BLOCK_TOKENS] * BLOCK_TOKENS + (
        places % BLOCK_TOKENS
    )
