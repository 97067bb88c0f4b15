"""Keys and values that another process can read, and random steps over them."""

from __future__ import annotations

import fcntl
import mmap
import os
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from torch import Tensor

from cluster.attention.backend import AttentionBackend
from cluster.attention.plan import Run, plan_attention
from cluster.attention.port import AttentionPort
from cluster.attention.shared_kv import DTYPES, SharedKv
from cluster.attention.shared_memory import ChannelSizes
from cluster.attention.split import PartPlan, split_attention
from cluster.attention.state import State
from cluster.blocks.pool import BLOCK_TOKENS, blocks_for
from cluster.blocks.segment import Home, SegmentView
from cluster.ids import BlockId
from tests.attention.steps import slots

HEADS, KV_HEADS, HEAD_DIM = 6, 2, 24
NUM_LAYERS = 4
LENGTHS = (1, 16, 17, 40, 255, 256, 300, 700)
# In numbers: room in front of the blocks and of each block, as an arena has for its headers.
HEADER, BLOCK_HEADER = 2048, 32
SIZES = ChannelSizes(HEADS, HEAD_DIM, max_queries=2048, max_parts=8192, plan_numbers=2**18)


class SharedBlocks:
    """Segments on scattered blocks. Slots that hold no token are NaN."""

    def __init__(self, dtype: str, backend: AttentionBackend, seed: int = 0) -> None:
        self.random = torch.Generator().manual_seed(seed)
        num_blocks = sum(map(blocks_for, LENGTHS)) + 3
        inner = KV_HEADS * HEAD_DIM * BLOCK_TOKENS
        stride = BLOCK_HEADER + 2 * NUM_LAYERS * inner
        starts = range(HEADER + BLOCK_HEADER, HEADER + stride, inner)
        self.kv = SharedKv(
            dtype,
            (HEADER + num_blocks * stride) * DTYPES[dtype].itemsize,
            num_blocks,
            KV_HEADS,
            HEAD_DIM,
            stride,
            tuple((starts[2 * layer], starts[2 * layer + 1]) for layer in range(NUM_LAYERS)),
        )
        self.fd = sealed_memory(self.kv.num_bytes)
        self.memory = memoryview(mmap.mmap(self.fd, self.kv.num_bytes))
        self.generations = np.full(num_blocks, 2, np.int64)
        memory = torch.frombuffer(self.memory, dtype=torch.uint8)
        memory.view(DTYPES[dtype]).fill_(torch.nan)
        self.k, self.v = self.kv.views(memory)
        order = iter(torch.randperm(num_blocks, generator=self.random).tolist())
        self.segments = [
            SegmentView(tuple(BlockId(next(order)) for _ in range(blocks_for(n))), n, Home.HOST)
            for n in LENGTHS
        ]
        for segment in self.segments:
            self.fill(segment, backend)

    def fill(self, segment: SegmentView, backend: AttentionBackend) -> None:
        size = (segment.num_tokens, KV_HEADS, HEAD_DIM)
        for k_cache, v_cache in zip(self.k, self.v, strict=True):
            k, v = (torch.randn(size, generator=self.random) for _ in range(2))
            backend.append(k_cache, v_cache, slots(segment), k, v)

    def write_over(self, segment: SegmentView, backend: AttentionBackend) -> None:
        """As an arena does: other content, and another generation."""
        self.fill(segment, backend)
        self.generations[list(segment.blocks)] += 2

    def queries(self, plan: PartPlan) -> Tensor:
        size = (len(plan.queries), HEADS, HEAD_DIM)
        return torch.randn(size, generator=self.random)

    def close(self) -> None:
        """The mapping has a descriptor of its own."""
        self.k, self.v, self.memory = [], [], memoryview(b"")
        os.close(self.fd)


def sealed_memory(num_bytes: int) -> int:
    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, num_bytes)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return fd


def one_row(segment: SegmentView) -> PartPlan:
    """Over one segment."""
    rows = torch.zeros(1, dtype=torch.int32)
    return PartPlan(rows.long(), rows, plan_attention([Run(0, 1, (segment,))]))


def rows_over_nothing(num_rows: int) -> PartPlan:
    rows = torch.arange(num_rows, dtype=torch.int32)
    return PartPlan(rows.long(), rows, plan_attention([]))


def drawn_plan(random: Random, segments: list[SegmentView], num_runs: int) -> PartPlan:
    """Of runs whose contexts lie here and elsewhere in any order, the part that lies here."""
    runs, first_row = [], random.randrange(3)
    for _ in range(num_runs):
        here = random.sample(segments, random.randint(1, 3))
        elsewhere = [
            SegmentView((BlockId(random.randrange(9)),), random.randint(1, BLOCK_TOKENS))
            for _ in range(random.randrange(3))
        ]
        context = [*here, *elsewhere]
        if random.random() < 0.6:
            random.shuffle(context)
        num_rows = random.randint(1, min(40, context[-1].num_tokens))
        runs.append(Run(first_row, num_rows, tuple(context)))
        first_row += num_rows + random.randrange(2)
    return split_attention(runs).parts[Home.HOST]


@dataclass(frozen=True, slots=True)
class Rig:
    """A port, what it reads, and what its bits have to be those of."""

    port: AttentionPort
    blocks: SharedBlocks
    backend: AttentionBackend

    def expected(self, plan: PartPlan, layer: int, q: Tensor) -> State:
        k, v = self.blocks.k[layer], self.blocks.v[layer]
        return self.backend.prepare(plan.attention).attend(q[plan.rows], k, v)

    def check_step(self, plan: PartPlan, layers: list[int]) -> None:
        """One exchange over these layers, in this order."""
        exchange = self.port.prepare(plan)
        for layer in layers:
            q = self.blocks.queries(plan)
            exchange.post(layer, q)
            assert_same_bits(exchange.collect(layer), self.expected(plan, layer, q))
        exchange.close()

    def check(self, random: Random, num_runs: int = 3) -> None:
        """A random step over all layers."""
        layers = random.sample(range(NUM_LAYERS), NUM_LAYERS)
        self.check_step(drawn_plan(random, self.blocks.segments, num_runs), layers)


def assert_same_bits(a: State, b: State) -> None:
    assert torch.equal(a.o, b.o)
    assert torch.equal(a.lse, b.lse)
