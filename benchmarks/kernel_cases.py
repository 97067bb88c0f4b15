"""What the kernel benchmark runs: shapes of models, cases, and blocks to run them on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product

import torch
from torch import Tensor

from benchmarks.catalogue import Scale
from cluster.attention.plan import AttentionPlan, Run, plan_attention
from cluster.blocks.pool import BLOCK_TOKENS, blocks_for
from cluster.blocks.segment import SegmentView
from cluster.engine.huge_pages import zeros
from cluster.ids import BlockId

SEED = 0
# Blocks of one layer: cells whose KV is larger are left out.
POOL_BYTES = 2**30
LONG_TOKENS = 16_384
PREFILL_ROWS = 512
OWN_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Shape:
    """Heads of a layer, and what its blocks hold."""

    name: str
    heads: int
    kv_heads: int
    head_dim: int
    dtype: torch.dtype = torch.float32

    @property
    def token_bytes(self) -> int:
        return 2 * self.kv_heads * self.head_dim * self.dtype.itemsize

    @property
    def group(self) -> int:
        return self.heads // self.kv_heads


SMOLLM2 = Shape("SmolLM2-135M", 9, 3, 64)
LLAMA3 = Shape("Llama-3-8B", 32, 8, 128)
# What Llama-2-7B has: a kv head for each query head.
LLAMA2 = Shape("Llama-2-7B", 32, 32, 128)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True, slots=True)
class Case:
    """`batch` contexts of `tokens`, or one that `sharers` rows attend beside a short one of their
    own, or a prefill chunk at the end of one."""

    kind: str
    tokens: int
    batch: int = 1
    sharers: int = 1

    @property
    def kv_tokens(self) -> int:
        """Tokens whose KV has to be read at least once."""
        return self.batch * self.tokens

    @property
    def num_scores(self) -> int:
        """Pairs of a row and a key."""
        if self.kind == "prefill":
            return PREFILL_ROWS * self.tokens - PREFILL_ROWS * (PREFILL_ROWS - 1) // 2
        return self.batch * self.tokens * self.sharers


class Pool:
    """Blocks of one layer, filled once, and contexts scattered over them."""

    def __init__(self, shape: Shape, num_bytes: int) -> None:
        self.shape = shape
        self.num_blocks = num_bytes // (shape.token_bytes * BLOCK_TOKENS)
        random = torch.Generator().manual_seed(SEED)
        self.numbers = torch.randn(2**20, generator=random)
        self.k = self._filled((shape.head_dim, BLOCK_TOKENS))
        self.v = self._filled((BLOCK_TOKENS, shape.head_dim))
        self.order = torch.randperm(self.num_blocks, generator=random).tolist()

    def _filled(self, inner: tuple[int, int]) -> Tensor:
        out = zeros((self.num_blocks, self.shape.kv_heads, *inner), self.shape.dtype)
        flat = out.view(-1)
        for start in range(0, len(flat), len(self.numbers)):
            part = flat[start : start + len(self.numbers)]
            part.copy_(self.numbers[: len(part)])
        return out

    def plan(self, case: Case) -> AttentionPlan:
        left = iter(self.order)

        def segment(num_tokens: int) -> SegmentView:
            blocks = (BlockId(next(left)) for _ in range(blocks_for(num_tokens)))
            return SegmentView(tuple(blocks), num_tokens)

        if case.kind == "prefill":
            return plan_attention([Run(0, PREFILL_ROWS, (segment(case.tokens),))])
        if case.kind == "decode":
            return plan_attention([Run(i, 1, (segment(case.tokens),)) for i in range(case.batch)])
        shared = segment(case.tokens)
        return plan_attention(
            [Run(i, 1, (shared, segment(OWN_TOKENS))) for i in range(case.sharers)]
        )

    def queries(self, plan: AttentionPlan) -> Tensor:
        num_rows = int(plan.run_rows.sum(0)[1])
        size = num_rows * self.shape.heads * self.shape.head_dim
        repeats = -(-size // len(self.numbers))
        return self.numbers.repeat(repeats)[:size].view(num_rows, self.shape.heads, -1)


def without_sharing(plan: AttentionPlan) -> AttentionPlan:
    """The same rows and blocks, every run with entries of its own."""
    of_run = plan.run_segments.tolist()
    bounds = list(pairwise(plan.segment_offsets.tolist()))
    blocks = [plan.block_ids[bounds[s][0] : bounds[s][1]] for s in of_run]
    lengths = torch.tensor([0, *map(len, blocks)])
    return replace(
        plan,
        run_segments=torch.arange(len(of_run), dtype=torch.int32),
        segment_tokens=plan.segment_tokens[plan.run_segments.long()],
        segment_offsets=lengths.cumsum(0).int(),
        block_ids=torch.cat(blocks),
    )


def cases(shape: Shape, scale: Scale) -> Iterator[Case]:
    """Those whose blocks fit into the pool."""
    full = scale is Scale.FULL
    lengths = (512, 2048, 8192, LONG_TOKENS, 32_768) if full else (512, LONG_TOKENS)
    batches = (1, 4, 16, 64) if full else (1, 8)
    sharers = (2, 4, 8, 16, 32) if full else (8,)
    most = POOL_BYTES // shape.token_bytes
    if shape.name != LLAMA2.name:
        for tokens, batch in product(lengths, batches):
            if tokens * batch <= most:
                yield Case("decode", tokens, batch)
        for tokens in (512, 4096):
            yield Case("prefill", tokens)
    for num_sharers in sharers:
        if LONG_TOKENS + num_sharers * OWN_TOKENS <= most:
            yield Case("grouped", LONG_TOKENS, sharers=num_sharers)


def shapes(scale: Scale) -> Sequence[Shape]:
    if scale is Scale.FULL:
        return [replace(s, dtype=d) for s, d in product((SMOLLM2, LLAMA3, LLAMA2), DTYPES)]
    bfloat16 = torch.bfloat16
    return [SMOLLM2, replace(SMOLLM2, dtype=bfloat16), replace(LLAMA3, dtype=bfloat16), LLAMA2]
